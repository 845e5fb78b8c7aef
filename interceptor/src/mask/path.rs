//! JSONPaths as an automaton: its states are sets of places in the paths, made as documents ask for them. A value's state
//! says how it is masked; where filters have to be asked first, the value has to be held until it is complete.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Withheld;
use crate::config::{Filter, JsonPath, Literal, Selector, Strategy};

/// The paths of a plan.
#[derive(Debug, Default)]
pub(super) struct Paths {
    paths: Vec<(JsonPath, Strategy)>,
    /// The place before each path's first step; places of a path are consecutive.
    offsets: Vec<u16>,
    /// For each place, its path and step.
    places: Vec<(u16, u16)>,
    /// All names in them, by length.
    names: Vec<Vec<(Box<str>, NameId)>>,
}

/// A name that paths mention; 0 is any other.
pub(super) type NameId = u16;

impl Paths {
    pub(super) fn new(paths: Vec<(JsonPath, Strategy)>) -> Self {
        let mut new = Self { paths, ..Self::default() };
        let mut names: NameId = 0;
        for (at, (path, _)) in new.paths.iter().enumerate() {
            new.offsets.push(u16::try_from(new.places.len()).unwrap_or(u16::MAX));
            for step in 0..=path.segments().len() {
                new.places.push((u16::try_from(at).unwrap_or(u16::MAX), u16::try_from(step).unwrap_or(u16::MAX)));
            }
            for selector in path.segments().iter().flat_map(|segment| &segment.selectors) {
                let Selector::Name(name) = selector else { continue };
                if new.names.len() <= name.len() {
                    new.names.resize(name.len() + 1, Vec::new());
                }
                let same_length = &mut new.names[name.len()];
                if same_length.iter().all(|(known, _)| known != name) {
                    names += 1;
                    same_length.push((name.clone(), names));
                }
            }
        }
        new
    }

    pub(super) fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(super) fn path(&self, path: u16) -> &str {
        self.paths.get(usize::from(path)).map_or("", |(path, _)| path.as_str())
    }

    /// Whether a path drops what it leads to.
    pub(super) fn drops(&self) -> bool {
        self.paths.iter().any(|(_, strategy)| *strategy == Strategy::Drop)
    }

    pub(super) fn name(&self, name: &[u8]) -> NameId {
        let same_length = self.names.get(name.len()).map_or(&[][..], |names| names);
        same_length.iter().find(|(known, _)| known.as_bytes() == name).map_or(0, |(_, id)| *id)
    }

    /// How a column or field of this name is masked: by the paths that end in the name.
    pub(super) fn named(&self, name: &str) -> Option<Choice> {
        let ends = |path: &JsonPath| {
            path.segments().last().is_some_and(|last| {
                last.selectors.iter().any(|selector| matches!(selector, Selector::Name(known) if **known == *name))
            })
        };
        let matching = self.paths.iter().enumerate().filter(|(_, (path, _))| ends(path));
        matching
            .filter_map(|(at, (_, strategy))| Some(Choice { strategy: *strategy, path: u16::try_from(at).ok()? }))
            .max()
    }

    fn known(&self) -> usize {
        1 + self.names.iter().map(Vec::len).sum::<usize>()
    }
}

/// How a value is masked, and by which path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Choice {
    pub(super) strategy: Strategy,
    pub(super) path: u16,
}

pub(super) type StateId = u32;

/// The state in which no path leads anywhere.
pub(super) const DEAD: StateId = 0;

/// What a step leads to: a state, and the filters that may add to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Next {
    pub(super) state: StateId,
    /// Which filters have to be asked; 0 for none.
    pub(super) filters: u32,
}

#[derive(Debug)]
struct State {
    places: Box<[u16]>,
    choice: Option<Choice>,
    /// By [`NameId`].
    members: Vec<Option<Next>>,
    elements: Option<Next>,
    /// Whether it depends on an element's index where it leads.
    indexed: bool,
}

/// A filter that leads to `place` if the value passes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Conditional {
    place: u16,
    selector: u16,
}

/// The automaton of one document at a time.
#[derive(Debug, Default)]
pub(super) struct Automaton {
    paths: Arc<Paths>,
    states: Vec<State>,
    ids: HashMap<Box<[u16]>, StateId>,
    filters: Vec<Box<[Conditional]>>,
    start: StateId,
}

/// More states than any sensible paths have.
const MOST_STATES: usize = 4096;

/// Automata of documents that are done with, which know the states that those asked for. One of few states is as good as
/// a new one for any document.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<Automaton>>);

impl Spare {
    const MOST: usize = 8;
    const FEW_STATES: usize = 64;

    pub(super) fn take(&self) -> Option<Automaton> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub(super) fn give_back(&self, automaton: Automaton) {
        let few = 1..=Self::FEW_STATES;
        if !few.contains(&automaton.states.len()) || automaton.filters.len() > Self::FEW_STATES {
            return;
        }
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < Self::MOST {
            spare.push(automaton);
        }
    }
}

impl Automaton {
    pub(super) fn new(paths: Arc<Paths>) -> Self {
        let mut new =
            Self { paths, states: Vec::new(), ids: HashMap::new(), filters: vec![Box::default()], start: DEAD };
        let offsets = new.paths.offsets.clone();
        // Two states always fit.
        let _ = new.state(Vec::new());
        new.start = new.state(offsets).unwrap_or(DEAD);
        new
    }

    pub(super) fn paths(&self) -> &Paths {
        &self.paths
    }

    /// The state of a document.
    pub(super) fn start(&self) -> StateId {
        self.start
    }

    /// How a value in this state is masked.
    pub(super) fn choice(&self, state: StateId) -> Option<Choice> {
        self.states[state as usize].choice
    }

    /// The state of the members of this name of a value in `state`.
    ///
    /// # Errors
    /// Paths so ambiguous that they can't be followed.
    pub(super) fn member(&mut self, state: StateId, name: NameId) -> Result<Next, Withheld> {
        if let Some(next) = self.states[state as usize].members[usize::from(name)] {
            return Ok(next);
        }
        let paths = Arc::clone(&self.paths);
        let next = self.step(state, |selector| match selector {
            Selector::Name(known) => paths.name(known.as_bytes()) == name,
            Selector::Wildcard => true,
            _ => false,
        })?;
        self.states[state as usize].members[usize::from(name)] = Some(next);
        Ok(next)
    }

    /// The state of the element at `index` of a value in `state`.
    ///
    /// # Errors
    /// As [`Automaton::member`].
    pub(super) fn element(&mut self, state: StateId, index: u32) -> Result<Next, Withheld> {
        let known = &self.states[state as usize];
        if let Some(next) = known.elements {
            return Ok(next);
        }
        let indexed = known.indexed;
        let next = self.step(state, |selector| match selector {
            Selector::Index(at) => *at == index,
            Selector::Slice { start, end, step } => {
                index >= *start && end.is_none_or(|end| index < end) && (index - start).is_multiple_of(*step)
            }
            Selector::Wildcard => true,
            _ => false,
        })?;
        if !indexed {
            self.states[state as usize].elements = Some(next);
        }
        Ok(next)
    }

    /// The state of a complete value, after its filters were asked.
    ///
    /// # Errors
    /// As [`Automaton::member`].
    pub(super) fn ask(&mut self, next: Next, value: &[u8]) -> Result<StateId, Withheld> {
        let mut places = self.states[next.state as usize].places.to_vec();
        for asked in self.filters[next.filters as usize].iter() {
            let (path, step) = self.paths.places[usize::from(asked.place)];
            let segments = self.paths.paths[usize::from(path)].0.segments();
            if let Selector::Filter(filter) = &segments[usize::from(step) - 1].selectors[usize::from(asked.selector)]
                && passes(filter, value)
            {
                places.push(asked.place);
            }
        }
        self.state(places)
    }

    /// The state of a document in a string: where the string stands, and at the start as well.
    ///
    /// # Errors
    /// As [`Automaton::member`].
    pub(super) fn within(&mut self, state: StateId) -> Result<StateId, Withheld> {
        let mut places = self.states[state as usize].places.to_vec();
        places.extend_from_slice(&self.states[self.start as usize].places);
        self.state(places)
    }

    fn step(&mut self, state: StateId, selects: impl Fn(&Selector) -> bool) -> Result<Next, Withheld> {
        let mut places = Vec::new();
        let mut filters = Vec::new();
        for &place in &self.states[state as usize].places {
            let (path, step) = self.paths.places[usize::from(place)];
            let segments = self.paths.paths[usize::from(path)].0.segments();
            let Some(segment) = segments.get(usize::from(step)) else { continue };
            if segment.descendant {
                places.push(place);
            }
            if segment.selectors.iter().any(&selects) {
                places.push(place + 1);
                continue;
            }
            for (at, selector) in segment.selectors.iter().enumerate() {
                if matches!(selector, Selector::Filter(_)) {
                    filters.push(Conditional { place: place + 1, selector: u16::try_from(at).unwrap_or_default() });
                }
            }
        }
        let state = self.state(places)?;
        let filters = if filters.is_empty() {
            0
        } else {
            match self.filters.iter().position(|known| known[..] == filters[..]) {
                Some(at) => at,
                None => {
                    self.filters.push(filters.into());
                    self.filters.len() - 1
                }
            }
        };
        Ok(Next { state, filters: u32::try_from(filters).unwrap_or_default() })
    }

    fn state(&mut self, mut places: Vec<u16>) -> Result<StateId, Withheld> {
        places.sort_unstable();
        places.dedup();
        if let Some(known) = self.ids.get(places.as_slice()) {
            return Ok(*known);
        }
        if self.states.len() >= MOST_STATES || self.filters.len() >= MOST_STATES {
            return Err(Withheld::too_large("the number of ways in which the paths can be followed"));
        }
        let places: Box<[u16]> = places.into();
        let mut choice = None;
        let mut indexed = false;
        for place in &places {
            let (path, step) = self.paths.places[usize::from(*place)];
            let (json, strategy) = &self.paths.paths[usize::from(path)];
            match json.segments().get(usize::from(step)) {
                None => choice = choice.max(Some(Choice { strategy: *strategy, path })),
                Some(segment) => {
                    indexed |=
                        segment.selectors.iter().any(|s| matches!(s, Selector::Index(_) | Selector::Slice { .. }));
                }
            }
        }
        let id = StateId::try_from(self.states.len()).unwrap_or_default();
        let members = vec![None; self.paths.known()];
        self.states.push(State { places: places.clone(), choice, members, elements: None, indexed });
        self.ids.insert(places, id);
        Ok(id)
    }
}

/// Whether the JSON text passes the filter. A member that is there twice passes if one of them does, and what can't be
/// read passes: it is masked.
fn passes(filter: &Filter, value: &[u8]) -> bool {
    use serde::de::DeserializeSeed;
    let mut reader = serde_json::Deserializer::from_slice(value);
    Asked { names: &filter.path, literal: &filter.value }.deserialize(&mut reader).unwrap_or(true)
}

#[derive(Clone, Copy)]
struct Asked<'a> {
    names: &'a [Box<str>],
    literal: &'a Literal,
}

impl<'de> serde::de::DeserializeSeed<'de> for Asked<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Asked<'_> {
    fn is(self, same: impl FnOnce(&Literal) -> bool) -> bool {
        self.names.is_empty() && same(self.literal)
    }
}

#[expect(clippy::cast_precision_loss, reason = "JSONPath compares numbers as doubles where they have to be")]
impl<'de> serde::de::Visitor<'de> for Asked<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<bool, E> {
        Ok(self.is(|literal| *literal == Literal::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
        Ok(self.is(|literal| *literal == Literal::Bool(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<bool, E> {
        Ok(self.is(|literal| *literal == Literal::Number(value as f64)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<bool, E> {
        Ok(self.is(|literal| *literal == Literal::Number(value as f64)))
    }

    fn visit_f64<E>(self, value: f64) -> Result<bool, E> {
        Ok(self.is(|literal| *literal == Literal::Number(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<bool, E> {
        Ok(self.is(|literal| matches!(literal, Literal::Text(text) if **text == *value)))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut elements: A) -> Result<bool, A::Error> {
        while elements.next_element::<serde::de::IgnoredAny>()?.is_some() {}
        Ok(false)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut members: A) -> Result<bool, A::Error> {
        let mut passes = false;
        while let Some(name) = members.next_key::<String>()? {
            match self.names.split_first() {
                Some((first, rest)) if **first == *name => {
                    passes |= members.next_value_seed(Asked { names: rest, literal: self.literal })?;
                }
                _ => {
                    members.next_value::<serde::de::IgnoredAny>()?;
                }
            }
        }
        Ok(passes)
    }
}
