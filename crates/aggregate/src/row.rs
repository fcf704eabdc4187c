//! One row, and what a query has found in it so far.

use crate::Query;
use crate::scalar::Scalar;
use std::cell::OnceCell;

/// A row under a query. Whatever is looked at more than once is found once: the value is parsed at
/// most once for all JSON paths, and only if one of them is looked at.
pub(crate) struct Row<'q, 'r> {
    query: &'q Query,
    pub key: &'r [u8],
    value: &'r [u8],
    key_scalar: Scalar<'r>,
    value_scalar: OnceCell<Option<Scalar<'r>>>,
    places: OnceCell<Vec<Place<'r>>>,
}

/// What stands at one JSON path.
#[derive(Default)]
struct Place<'r> {
    text: Option<&'r str>,
    scalar: OnceCell<Option<Scalar<'r>>>,
}

impl<'q, 'r> Row<'q, 'r> {
    pub fn new(query: &'q Query, key: &'r [u8], value: &'r [u8]) -> Self {
        let key_scalar = Scalar::Text(key.into());
        let (value_scalar, places) = (OnceCell::new(), OnceCell::new());
        Self { query, key, value, key_scalar, value_scalar, places }
    }

    fn place(&self, slot: usize) -> &Place<'r> {
        let places = self.places.get_or_init(|| {
            let paths = &self.query.paths;
            let mut places: Vec<Place<'r>> = Vec::new();
            places.resize_with(paths.count(), Place::default);
            paths.find(self.value, |slot, text| places[slot].text = Some(text));
            places
        });
        &places[slot]
    }

    /// The JSON text at a path.
    pub fn json(&self, slot: usize) -> Option<&'r str> {
        self.place(slot).text
    }

    /// The same as one side of a comparison.
    pub fn json_scalar(&self, slot: usize) -> Option<&Scalar<'r>> {
        let place = self.place(slot);
        place.scalar.get_or_init(|| place.text.and_then(Scalar::of_json)).as_ref()
    }

    /// The key as one side of a comparison.
    pub fn key_scalar(&self) -> &Scalar<'r> {
        &self.key_scalar
    }

    /// The value as one side of a comparison.
    pub fn value_scalar(&self) -> Option<&Scalar<'r>> {
        let scalar = || Some(Scalar::of_value(self.part()?, &self.query.source));
        self.value_scalar.get_or_init(scalar).as_ref()
    }

    /// The part of the value that numbers are taken from; none if there is no such part.
    pub fn part(&self) -> Option<&'r [u8]> {
        match self.query.source_slot {
            Some(slot) => self.json(slot).map(str::as_bytes),
            None => Some(self.value),
        }
    }
}
