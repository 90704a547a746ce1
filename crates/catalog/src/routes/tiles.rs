//! Routes in key order, in chunks that maps of neighbouring versions share.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use drover_keys::{End, Interval};

use super::Route;
use super::index::{Equal, KeyIndex};

/// A chunk above it is divided.
const MAX_CHUNK: usize = 512;
/// A chunk below it is joined with a neighbour.
const MIN_CHUNK: usize = MAX_CHUNK / 4;
/// Chunks of a new list.
const NEW_CHUNK: usize = MAX_CHUNK / 2;

const _: () = assert!(2 * MIN_CHUNK <= NEW_CHUNK, "two halves of a full chunk must not be joined again at once");

/// Where a route stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    chunk: usize,
    at: usize,
}

/// Some routes in key order, at least one.
#[derive(Debug)]
struct Chunk {
    routes: Box<[Route]>,
    /// Of the starts of all routes but the first: whoever looks into a chunk knows that he is not below it, and the
    /// empty key in the first chunk would spoil the common prefix.
    starts: KeyIndex,
}

impl Chunk {
    fn of(routes: &[Route]) -> Arc<Self> {
        let starts = KeyIndex::of(routes[1..].iter().map(|route| route.interval.start()));
        Arc::new(Self { routes: routes.into(), starts })
    }

    fn first(&self) -> &Bytes {
        self.routes[0].interval.start()
    }
}

/// Routes in key order. Whoever makes one sees to it that they tile the key space.
#[derive(Debug, Clone, Default)]
pub(super) struct Tiles {
    chunks: Vec<Arc<Chunk>>,
    /// Of the starts of all chunks but the first.
    starts: KeyIndex,
    count: usize,
}

impl Tiles {
    /// The list of these routes, which are in key order.
    pub(super) fn of(routes: &[Route]) -> Self {
        let mut tiles = Self { count: routes.len(), ..Self::default() };
        tiles.put(0..0, routes.chunks(NEW_CHUNK));
        tiles
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn get(&self, position: Position) -> &Route {
        &self.chunks[position.chunk].routes[position.at]
    }

    /// All routes in key order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &Route> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.routes.iter())
    }

    /// The route that covers `key`: the last one that starts at or below it.
    pub(super) fn find(&self, key: &[u8]) -> Position {
        self.last_below(key, Equal::Counts)
    }

    /// The first and the last route that share a key with `interval`.
    pub(super) fn span(&self, interval: &Interval) -> (Position, Position) {
        let last = match interval.end() {
            End::Key(end) => self.last_below(end, Equal::DoesNotCount),
            End::Unbounded => self.last(),
        };
        (self.find(interval.start()), last)
    }

    /// From the route at `first` to the one at `last`, both included.
    pub(super) fn between(&self, first: Position, last: Position) -> impl DoubleEndedIterator<Item = &Route> + Clone {
        (first.chunk..=last.chunk).flat_map(move |n| {
            let from = if n == first.chunk { first.at } else { 0 };
            let routes = &self.chunks[n].routes;
            let to = if n == last.chunk { last.at + 1 } else { routes.len() };
            routes[from..to].iter()
        })
    }

    /// Puts `with` in the place of the routes from `first` to `last`, both included. Other chunks stay shared.
    pub(super) fn replace(&mut self, first: Position, last: Position, with: &[Route]) {
        self.count -= self.between(first, last).count();
        self.count += with.len();
        let head = &self.chunks[first.chunk].routes[..first.at];
        let tail = &self.chunks[last.chunk].routes[last.at + 1..];
        let mut merged = [head, with, tail].concat();
        let (mut from, mut to) = (first.chunk, last.chunk + 1);
        if merged.len() < MIN_CHUNK && to < self.chunks.len() {
            merged.extend_from_slice(&self.chunks[to].routes);
            to += 1;
        } else if merged.len() < MIN_CHUNK && from > 0 {
            from -= 1;
            merged.splice(..0, self.chunks[from].routes.iter().cloned());
        }
        let pieces = merged.len().div_ceil(MAX_CHUNK);
        self.put(from..to, merged.chunks(merged.len().div_ceil(pieces)));
    }

    fn put<'a>(&mut self, place: Range<usize>, pieces: impl Iterator<Item = &'a [Route]>) {
        self.chunks.splice(place, pieces.map(Chunk::of));
        self.starts = KeyIndex::of(self.chunks.iter().skip(1).map(|chunk| chunk.first()));
    }

    /// The last route whose start is below `bound`, or equal to it if that counts. The first route always is.
    fn last_below(&self, bound: &[u8], equal: Equal) -> Position {
        let chunk = self.starts.count_below(bound, equal, |n| self.chunks[n + 1].first());
        let Chunk { routes, starts } = self.chunks[chunk].as_ref();
        Position { chunk, at: starts.count_below(bound, equal, |n| routes[n + 1].interval.start()) }
    }

    fn last(&self) -> Position {
        let chunk = self.chunks.len() - 1;
        Position { chunk, at: self.chunks[chunk].routes.len() - 1 }
    }

    /// Chunks of which `other` has the very same one.
    #[cfg(test)]
    pub(super) fn shared_with(&self, other: &Tiles) -> usize {
        self.chunks.iter().filter(|chunk| other.chunks.iter().any(|c| Arc::ptr_eq(c, chunk))).count()
    }

    #[cfg(test)]
    pub(super) fn chunk_sizes(&self) -> Vec<usize> {
        self.chunks.iter().map(|chunk| chunk.routes.len()).collect()
    }
}

/// Two lists are equal if their routes are, however they are cut.
impl PartialEq for Tiles {
    fn eq(&self, other: &Self) -> bool {
        self.count == other.count && self.iter().eq(other.iter())
    }
}

impl Eq for Tiles {}
