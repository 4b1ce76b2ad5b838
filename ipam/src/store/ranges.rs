//! The tables of the ranges: which address comes next, and keeping them up to date.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use cni_conf::range::{Range, RangeSet};

use super::error::{StoreError, at};
use super::table::{Rested, Span, Table};
use super::{Store, files};
use crate::allocate::offer;

/// So many ranges have a table; the index has room for no more. A range comes without one when the configuration is
/// changed, so this many are a long history.
const MAX_RANGES: usize = 32;

impl Store {
    /// The address of a set that is to be given next: one that was never given, else the one that has been free the
    /// longest. `None` when all are held. It remains the next one until it is [claimed](Store::claim).
    ///
    /// # Errors
    /// When a table cannot be read or made.
    pub fn next_free(&mut self, index: usize, set: &RangeSet) -> Result<Option<IpAddr>, StoreError> {
        let ranges = self.side.ranges.clone();
        let mut longest_free: Option<Rested> = None;
        for range in &set.0 {
            let table = self.table(range, index)?;
            let offered = |addr| offer(set, addr);
            let rested = table.longest_free(offered).map_err(at("read", &ranges))?;
            if (!table.is_large() || rested.is_none())
                && let Some(addr) = table.fresh(offered).map_err(at("read", &ranges))?
            {
                return Ok(Some(addr));
            }
            longest_free = longest_free.into_iter().chain(rested).min_by_key(|rested| rested.at);
        }
        Ok(longest_free.map(|rested| rested.addr))
    }

    /// Notes in every table that an address is held.
    pub(super) fn note_held(&mut self, addr: IpAddr) {
        self.note(addr, |table| table.hold(addr));
    }

    /// Notes in every table that an address is free.
    pub(super) fn note_free(&mut self, addr: IpAddr) {
        let now = self.moment.uptime;
        self.note(addr, |table| table.free(addr, now));
    }

    /// A table that cannot be changed is no reason to fail: it will be made anew.
    fn note(&mut self, addr: IpAddr, change: impl Fn(&mut Table) -> io::Result<()>) {
        if !self.known {
            return;
        }
        let spans = self.index.ranges.iter().filter_map(|name| Span::parse(name));
        let spans: Vec<Span> = spans.filter(|span| span.covers(addr)).collect();
        for span in spans {
            let outcome = match self.opened(span) {
                Some(table) => change(table),
                None => Err(io::Error::other("not a table")),
            };
            if let Err(error) = outcome {
                log::warn!("{}: {error}, to be made anew", self.side.ranges.join(span.name()).display());
                self.known = false;
            }
        }
    }

    /// The table of a range of the configuration, made when there is none.
    fn table(&mut self, range: &Range, set: usize) -> Result<&mut Table, StoreError> {
        let span = Span { first: range.first, last: range.last };
        let name = span.name();
        if !self.index.ranges.contains(&name) || self.opened(span).is_none() {
            let held: BTreeSet<IpAddr> = files::addresses(&self.dir)?.into_iter().collect();
            let path = self.side.ranges.join(&name);
            // Whatever is there is of another time.
            files::remove(&path)?;
            let table = Table::make(&path, span, &held, self.last_reserved(set), self.moment.uptime);
            self.tables.insert(name.clone(), table.map_err(at("write", &path))?);
            if !self.index.ranges.contains(&name) {
                self.index.ranges.push(name.clone());
                let surplus = self.index.ranges.len().saturating_sub(MAX_RANGES);
                self.index.ranges.drain(..surplus);
            }
        }
        let path = self.side.ranges.join(name);
        self.opened(span).ok_or_else(|| at("read", &path)(io::Error::other("not a table")))
    }

    fn opened(&mut self, span: Span) -> Option<&mut Table> {
        let name = span.name();
        if !self.tables.contains_key(&name) {
            let table = Table::open(&self.side.ranges.join(&name), span)?;
            self.tables.insert(name.clone(), table);
        }
        self.tables.get_mut(&name)
    }
}
