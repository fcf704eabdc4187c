//! Operations that the meta service drives to their end: moves of replicas, merges.

use super::client;
use super::wait::Wait;
use crate::args::{Global, OperationCommand};
use crate::failure::{CONDITION, Failure};
use crate::output::{self, Format};
use isotherm_client::{Client, ClientError, Operation, OperationStatus};
use serde_json::{Value, json};
use std::time::Duration;

/// Between two looks at an operation that is waited for.
const POLL: Duration = Duration::from_millis(100);

fn operation_json(o: &Operation) -> Value {
    let place = |(node, replica): (isotherm_types::NodeId, isotherm_types::ReplicaId)| {
        (node.get() != 0).then(|| json!({"node": node.get(), "replica": replica.get()}))
    };
    json!({
        "id": o.id,
        "kind": o.kind,
        "range": o.range.get(),
        "right": o.right.map(|right| right.get()),
        "from": place(o.from),
        "to": place(o.to),
        "state": o.state,
        "reason": o.reason,
        "step": o.step,
        "started_ms": o.started_ms,
        "ended_ms": (o.ended_ms > 0).then_some(o.ended_ms),
        "deadline_ms": o.deadline_ms,
    })
}

fn operation_row(o: &Operation) -> Vec<String> {
    let took = |ms: u64| format!("{:.1} s", ms as f64 / 1000.0);
    let places = match o.right {
        Some(right) => format!("{right} -> {}", o.range),
        None if o.from.0.get() == 0 => format!("+ {}", o.to.0),
        None => format!("{} -> {}", o.from.0, o.to.0),
    };
    let note = if o.reason.is_empty() { &o.step } else { &o.reason };
    vec![
        o.id.to_string(),
        o.kind.clone(),
        o.range.to_string(),
        places,
        o.state.clone(),
        if o.ended_ms > 0 { took(o.ended_ms.saturating_sub(o.started_ms)) } else { "-".to_owned() },
        note.clone(),
    ]
}

const HEADER: [&str; 7] = ["OPERATION", "KIND", "RANGE", "FROM -> TO", "STATE", "TOOK", "NOTE"];

fn show(global: &Global, operation: &Operation) -> Result<(), Failure> {
    match global.format() {
        Format::Json => output::json(&operation_json(operation)),
        Format::Table => output::table(&HEADER, vec![operation_row(operation)]),
    }
}

pub async fn run(global: &Global, command: OperationCommand) -> Result<(), Failure> {
    let client = client(global)?;
    match command {
        OperationCommand::List => {
            let operations = client.admin().operations().await?;
            match global.format() {
                Format::Json => output::json(&operations.iter().map(operation_json).collect()),
                Format::Table => {
                    output::table(&HEADER, operations.iter().map(operation_row).collect())
                }
            }
        }
        OperationCommand::Show { id } => show(global, &client.admin().operation(id).await?),
        OperationCommand::Cancel { id } => {
            show(global, &client.admin().cancel_operation(id).await?)
        }
    }
}

/// Orders an operation, shows it and, with `wait`, waits for its end: one that was not carried out is a
/// failure.
pub async fn follow(
    global: &Global,
    client: &Client,
    order: impl Future<Output = Result<Operation, ClientError>>,
    wait: bool,
) -> Result<(), Failure> {
    let operation = if wait {
        let mut wait = Wait::new(global);
        let mut operation = wait.step(order).await?;
        while operation.status() == OperationStatus::Running {
            let Operation { id, kind, range, state, step, .. } = &operation;
            wait.say(format!("operation {id}, {kind} of {range}: {state}; {step}"));
            wait.pause(POLL).await?;
            operation = wait.step(client.admin().operation(operation.id)).await?;
        }
        operation
    } else {
        order.await?
    };
    show(global, &operation)?;
    if operation.status() == OperationStatus::Failed {
        let Operation { kind, range, reason, .. } = &operation;
        let why = format!("the {kind} of {range} was not carried out: {reason}");
        return Err(Failure::new(CONDITION, why));
    }
    Ok(())
}
