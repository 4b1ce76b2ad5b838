//! The tables of the ranges: finds the next address, and keeps the tables up to date.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use cni_conf::range::Range;

use super::error::{StoreError, at};
use super::index::Shown;
use super::pool::Pool;
use super::rights::{self, Rights};
use super::table::{AddressRange, FreedAddress, Fresh, RangeTable, WINDOW};
use super::usage::Usage;
use super::{Store, files};
use crate::allocate::{Offer, offer};

/// The largest number of ranges with a table. The index has no room for more. A change of the configuration
/// can leave a range's table behind, so this is enough for a long history.
const MAX_RANGES: usize = 32;

impl Store {
    /// The next address of a set: an address that was never assigned, otherwise the address that has been
    /// free the longest. That address has also cooled down the longest. `None` if all are held. The address
    /// stays the next one until it is [claimed](Store::claim).
    ///
    /// # Errors
    /// If a table cannot be read or created.
    pub fn next_free(&mut self, pool: &Pool<'_>) -> Result<Option<IpAddr>, StoreError> {
        let ranges = self.side.ranges.clone();
        let rested_since = self.rested_since(pool.cooldown);
        let (aside, rights) = (self.quarantined_of(pool)?, self.rights(pool)?);
        let rights = rights.as_deref();
        let offered = |addr| offered(pool, rights, &aside, addr);
        let mut longest_free: Option<FreedAddress> = None;
        for range in self.in_order(pool) {
            let table = self.table(range, pool)?;
            let capacity = rights.map(|rights| rights::count(pool.set, range, &rights.granted));
            table.set_capacity(capacity.unwrap_or_else(|| pool.set.capacity_of(range)));
            let rested = table.longest_free(offered).map_err(at("read", &ranges))?;
            // A large range has more fresh addresses than the table should record.
            let enough = table.is_large() && rested.is_some_and(|rested| rested.at <= rested_since);
            if !enough && let Some(addr) = table.fresh(offered).map_err(at("read", &ranges))? {
                return Ok(Some(addr));
            }
            longest_free = longest_free.into_iter().chain(rested).min_by_key(|rested| rested.at);
        }
        Ok(longest_free.map(|rested| rested.addr))
    }

    /// Up to `most` next addresses of a set, in the order of [`Store::next_free`]: of all ranges the ones
    /// that were never assigned, then the ones that have been free the longest. In large ranges the latter
    /// come first.
    ///
    /// # Errors
    /// If a table cannot be read or created.
    pub fn upcoming(&mut self, pool: &Pool<'_>, most: usize) -> Result<Vec<IpAddr>, StoreError> {
        let (ranges, rested_since) = (self.side.ranges.clone(), self.rested_since(pool.cooldown));
        let (aside, rights) = (self.quarantined_of(pool)?, self.rights(pool)?);
        let offered = |addr| offered(pool, rights.as_deref(), &aside, addr);
        let (mut upcoming, mut rested) = (Vec::new(), Vec::new());
        for range in self.in_order(pool) {
            let table = self.table(range, pool)?;
            let free = table.next_free(offered, most).map_err(at("read", &ranges))?;
            let (first, later): (Vec<FreedAddress>, Vec<FreedAddress>) =
                free.into_iter().partition(|rested| table.is_large() && rested.at <= rested_since);
            upcoming.extend(first.into_iter().map(|rested| rested.addr));
            upcoming.extend(table.next_fresh(offered, most).map_err(at("read", &ranges))?);
            rested.extend(later);
        }
        rested.sort_by_key(|rested| rested.at);
        upcoming.extend(rested.into_iter().map(|rested| rested.addr));
        upcoming.truncate(most);
        Ok(upcoming)
    }

    /// The ranges of a set, starting with the range of the address that was assigned last. host-local also
    /// continues after that address.
    fn in_order<'a>(&self, pool: &Pool<'a>) -> impl Iterator<Item = &'a Range> + use<'a> {
        let ranges = &pool.set.0;
        let last = if ranges.len() > 1 { self.last_reserved(pool.index) } else { None };
        let of_last = last.and_then(|last| ranges.iter().position(|range| range.contains(last)));
        let (before, from) = ranges.split_at(of_last.unwrap_or(0));
        from.iter().chain(before)
    }

    /// The quarantined addresses of a set. They stay in the queue of their tables and are available again
    /// when the quarantine ends.
    pub(super) fn quarantined_of(&mut self, pool: &Pool<'_>) -> Result<BTreeSet<IpAddr>, StoreError> {
        let (now, ranges) = (self.boot_time.uptime, self.side.ranges.clone());
        let all = self.all_quarantined();
        let aside: BTreeSet<IpAddr> =
            all.into_iter().map(|(addr, ..)| addr).filter(|addr| pool.set.offers(*addr)).collect();
        if self.rights(pool)?.is_some() {
            return Ok(aside);
        }
        for addr in &aside {
            let Some(range) = pool.set.range_of(*addr) else { continue };
            if self.table(range, pool)?.is_fresh(*addr).map_err(at("read", &ranges))? {
                self.unmark()?;
                self.table(range, pool)?.free(*addr, now).map_err(at("write", &ranges))?;
            }
        }
        Ok(aside)
    }

    /// Rebuilds the tables of a set, without their old content, if they have lost addresses: they offer none
    /// although some are free. Returns whether they had.
    ///
    /// # Errors
    /// If a table or the directory cannot be read.
    pub fn repair(&mut self, pool: &Pool<'_>) -> Result<bool, StoreError> {
        let usages = self.usage(pool)?;
        // Of a larger range, only so many addresses are offered anyway.
        let lost = |usage: &Usage| {
            let kept_back = usage.shared.as_ref().map_or(0, |shared| shared.unconfirmed + shared.unproven);
            usage.total <= WINDOW && usage.used + usage.quarantined + kept_back < usage.total
        };
        if !usages.iter().any(lost) {
            return Ok(false);
        }
        for range in &pool.set.0 {
            let name = AddressRange { first: range.first, last: range.last }.name();
            log::warn!(
                "{}: the table had lost addresses and was rebuilt",
                self.side.ranges.join(&name).display()
            );
            self.drop_table(&name);
        }
        Ok(true)
    }

    /// Addresses that became free up to this time of the boot have cooled down.
    pub(super) fn rested_since(&self, cooldown: u32) -> u32 {
        self.boot_time.uptime.saturating_sub(cooldown.saturating_mul(10))
    }

    /// Records in every table that an address is held.
    pub(super) fn note_held(&mut self, addr: IpAddr) {
        self.note(addr, |table| table.hold(addr));
    }

    /// Records in every table that an address is free. What a shared pool grants no more is not offered.
    pub(super) fn note_free(&mut self, addr: IpAddr) {
        let now = self.boot_time.uptime;
        let is_granted = self.is_granted(addr);
        self.note(addr, |table| if is_granted { table.free(addr, now) } else { table.forget(addr) });
    }

    /// Drops a table. Its next use rebuilds it from the leases alone.
    fn drop_table(&mut self, name: &str) {
        self.tables.remove(name);
        self.index.ranges.retain(|other| other != name);
        self.index.shared.remove(name);
        self.changed = true;
    }

    /// Updates every table of an address. If a table cannot be changed, this is no error, because it is
    /// rebuilt later. Until then it would offer the same address again and again.
    fn note(&mut self, addr: IpAddr, change: impl Fn(&mut RangeTable) -> io::Result<()>) {
        if !self.known {
            return;
        }
        let spans = self.index.ranges.iter().filter_map(|name| AddressRange::parse(name));
        let spans: Vec<AddressRange> = spans.filter(|span| span.covers(addr)).collect();
        for span in spans {
            let outcome = match self.opened(span) {
                Some(table) => change(table),
                None => Err(io::Error::other("not a table")),
            };
            if let Err(error) = outcome {
                log::warn!(
                    "{}: {error}, the table will be rebuilt",
                    self.side.ranges.join(span.name()).display()
                );
                self.drop_table(&span.name());
            }
        }
    }

    /// The table of a range of the configuration. It is created if it does not exist. With a shared pool, it
    /// offers what is granted now.
    pub(super) fn table(&mut self, range: &Range, pool: &Pool<'_>) -> Result<&mut RangeTable, StoreError> {
        let rights = self.rights(pool)?;
        let span = AddressRange { first: range.first, last: range.last };
        let name = span.name();
        let shown = self.index.shared.get(&name).copied();
        let is_there = self.index.ranges.contains(&name) && self.opened(span).is_some();
        if !is_there || shown.is_some() != rights.is_some() {
            self.make_table(span, pool, rights.is_some())?;
        }
        if let Some(rights) = rights {
            let wanted = Shown { set: pool.index, stamp: rights.stamp };
            if self.index.shared.get(&name) != Some(&wanted) {
                self.show(span, &rights)?;
                self.index.shared.insert(name.clone(), wanted);
            }
        }
        let path = self.side.ranges.join(name);
        self.opened(span).ok_or_else(|| at("read", &path)(io::Error::other("not a table")))
    }

    fn make_table(&mut self, span: AddressRange, pool: &Pool<'_>, is_shared: bool) -> Result<(), StoreError> {
        let name = span.name();
        let held: BTreeSet<IpAddr> = files::addresses(&self.dir)?.into_iter().collect();
        let path = self.side.ranges.join(&name);
        // An existing file is out of date.
        files::remove(&path)?;
        let fresh = if is_shared { Fresh::None } else { Fresh::After(self.last_reserved(pool.index)) };
        let table = RangeTable::make(&path, span, &held, fresh, self.boot_time.uptime);
        self.drop_table(&name);
        self.tables.insert(name.clone(), table.map_err(at("write", &path))?);
        self.index.ranges.push(name);
        let surplus = self.index.ranges.len().saturating_sub(MAX_RANGES);
        for old in self.index.ranges.drain(..surplus) {
            self.index.shared.remove(&old);
        }
        Ok(())
    }

    /// Lets a table offer what is granted. Another node's pod may use what is granted no more, and a pod of a
    /// lost node what is unproven: earlier verdicts on them do not count.
    fn show(&mut self, span: AddressRange, rights: &Rights) -> Result<(), StoreError> {
        self.unmark()?;
        let (now, path) = (self.boot_time.uptime, self.side.ranges.join(span.name()));
        if let Some(table) = self.opened(span) {
            table.show(&rights.granted, now).map_err(at("write", &path))?;
        }
        self.drop_clear(|addr| span.contains(addr) && !rights.is_certain(addr))
    }

    pub(super) fn opened(&mut self, span: AddressRange) -> Option<&mut RangeTable> {
        let name = span.name();
        if !self.tables.contains_key(&name) {
            let table = RangeTable::open(&self.side.ranges.join(&name), span)?;
            self.tables.insert(name.clone(), table);
        }
        self.tables.get_mut(&name)
    }
}

/// Whether an address may be assigned without a request for it.
fn offered(pool: &Pool<'_>, rights: Option<&Rights>, quarantined: &BTreeSet<IpAddr>, addr: IpAddr) -> Offer {
    match offer(pool.set, quarantined, addr) {
        Offer::Yes if rights.is_some_and(|rights| !rights.offers(addr, pool.probes)) => Offer::NotUntil(addr),
        offer => offer,
    }
}
