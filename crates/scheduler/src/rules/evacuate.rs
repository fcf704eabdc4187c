//! A draining node leads nothing, a decommissioned one has nothing.

use crate::pass::Pass;
use crate::{Action, Intent, Rule};

/// Hands leaderships over, then moves replicas away. Transfers move no data: there may be many.
pub(crate) fn evacuate(pass: &mut Pass<'_>) {
    let leaving = |pass: &Pass<'_>, node| {
        pass.node(node).map(|n| n.intent).filter(|intent| *intent != Intent::Active)
    };
    if pass.view.nodes.values().all(|n| n.intent == Intent::Active) {
        return;
    }
    for range in &pass.view.ranges {
        let d = &range.descriptor;
        if let Some(leader) = range.leader
            && let Some(intent) = leaving(pass, leader)
        {
            let verb = if intent == Intent::Draining { "drained" } else { "decommissioned" };
            if let Some(why) = pass.busy(range) {
                pass.decline(Rule::Evacuate, d.id, format!("{leader} is being {verb}, but {why}"));
                continue;
            }
            let books = &pass.books;
            let heir = pass.heirs(range).min_by(|a, b| {
                let use_of =
                    |node| books.get(node).map_or((0.0, 0), |b| (b.use_share(), b.leaders));
                let ((ua, la), (ub, lb)) = (use_of(a), use_of(b));
                ua.total_cmp(&ub).then(la.cmp(&lb)).then(a.cmp(b))
            });
            let Some(to) = heir else {
                let why = format!(
                    "{leader} is being {verb}, but no other live voter of the range may lead it"
                );
                pass.decline(Rule::Evacuate, d.id, why);
                continue;
            };
            let why = format!("{leader} is being {verb}");
            pass.act(Rule::Evacuate, Action::Transfer { range: d.id, to }, why);
            continue;
        }
        let gone = d.replicas.iter().map(|r| r.node);
        let mut gone = gone.filter(|node| leaving(pass, *node) == Some(Intent::Decommissioning));
        let Some(from) = gone.next() else { continue };
        if let Some(why) = pass.busy(range) {
            pass.decline(
                Rule::Evacuate,
                d.id,
                format!("{from} is being decommissioned, but {why}"),
            );
            continue;
        }
        if !pass.has_room_out(from) {
            let most = pass.settings.moves_per_node;
            let why = format!(
                "{from} is being decommissioned; {most} moves away from it are under way already"
            );
            pass.decline(Rule::Evacuate, d.id, why);
            continue;
        }
        let Some(to) = pass.best_host(range, Some(from)) else {
            let why = format!(
                "{from} is being decommissioned, but no node that serves, has room and has no \
                 replica of it is free for one now"
            );
            pass.decline(Rule::Evacuate, d.id, why);
            continue;
        };
        let why = format!("{from} is being decommissioned");
        pass.act(Rule::Evacuate, Action::Move { range: d.id, from, to }, why);
    }
}
