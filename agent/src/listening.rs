//! What follows from listening to the networks: addresses that are ready for ADD, and conflicts.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use cni_conf::cni::error::CniError;
use tokio::sync::mpsc::Sender;
use tokio::time::{Interval, MissedTickBehavior, interval};
use vlan_bridge::ports::RecordedNetwork;
use vlan_bridge::watched::Watched;

use crate::attempts::Time;
use crate::budget::Budget;
use crate::conflicts::{Conflicts, KnownConflict};
use crate::ear::{Conflict, Ears};
use crate::figures::Figures;
use crate::prober::{Job, Probed, Prober};
use crate::report::Report;
use crate::strangers::Strangers;

/// How often verdicts are extended. They count for ten seconds.
const TEND: Duration = Duration::from_secs(4);

/// The ears, and what is done with what they hear.
#[derive(Debug)]
pub(crate) struct Listening {
    dry_run: bool,
    ears: Ears,
    prober: Prober,
    /// The prober has jobs.
    is_probing: bool,
    /// The ears were asked for a turn of the prober.
    is_asking: bool,
    networks: Vec<RecordedNetwork>,
    budget: Budget,
    conflicts: Conflicts,
    strangers: Strangers,
    /// The last error of each network, which is told once.
    told: BTreeMap<String, String>,
    ticks: Interval,
    figures: Figures,
}

impl Listening {
    /// Without any network yet. Conflicts are sent there.
    pub(crate) fn start(dry_run: bool, heard: Sender<Conflict>, figures: Figures) -> io::Result<Listening> {
        let mut ticks = interval(TEND);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Listening {
            dry_run,
            ears: Ears::new(heard),
            prober: Prober::start()?,
            is_probing: false,
            is_asking: false,
            networks: Vec::new(),
            budget: Budget::default(),
            conflicts: Conflicts::default(),
            strangers: Strangers::default(),
            told: BTreeMap::new(),
            ticks,
            figures,
        })
    }

    /// Listens where a pass has seen networks.
    pub(crate) fn follow(&mut self, watched: &Watched) {
        self.ears.follow(watched);
        self.strangers.follow(watched);
        self.networks.clone_from(&watched.networks);
    }

    /// Counts a failover as a gap in listening.
    pub(crate) fn gap(&self, uplink: &str) {
        self.ears.gap(uplink);
    }

    /// Counts lost announcements as a gap on all uplinks.
    pub(crate) fn gap_of_all(&self) {
        self.ears.gap_of_all();
    }

    /// Takes a conflict in. Returns what to tell, and whether to defend the pod's address.
    pub(crate) fn heard(&mut self, conflict: Conflict, now: Time) -> (Option<Report>, bool) {
        let (report, defends) = self.conflicts.heard(conflict, now);
        (report, defends && !self.dry_run)
    }

    /// The conflicts that last.
    pub(crate) fn conflicts(&self) -> Vec<KnownConflict> {
        self.conflicts.lasting()
    }

    /// Waits for the next turn or for the prober, and returns what to tell. Nothing is lost if the future is
    /// dropped.
    pub(crate) async fn tend(&mut self, started: Instant) -> Result<Vec<Report>, CniError> {
        tokio::select! {
            _ = self.ticks.tick() => {
                let now = started.elapsed();
                if !self.is_probing && !self.dry_run {
                    self.ears.ask();
                    self.is_asking = true;
                }
                let mut reports = self.conflicts.over(now);
                for (uplink, heard) in self.ears.overheard() {
                    reports.extend(self.strangers.turn(&uplink, heard, now));
                }
                self.strangers.forget(now);
                Ok(reports)
            }
            () = self.ears.answered(), if self.is_asking => {
                self.is_asking = false;
                self.begin(started.elapsed());
                Ok(Vec::new())
            }
            probed = self.prober.probed() => {
                self.is_probing = false;
                Ok(self.probed(probed?, started.elapsed()))
            }
        }
    }

    fn begin(&mut self, now: Time) {
        let probed = self.networks.iter().filter(|network| network.addresses.is_some());
        let jobs = probed.filter_map(|network| {
            let listened = self.ears.listened(&network.uplink, network.vlan)?;
            let may_probe = self.budget.of(&network.name, now);
            Some(Job { network: network.clone(), listened, may_probe })
        });
        let jobs: Vec<Job> = jobs.collect();
        if !jobs.is_empty() {
            self.is_probing = true;
            self.prober.begin(jobs);
        }
    }

    fn probed(&mut self, probed: Vec<Probed>, now: Time) -> Vec<Report> {
        let mut reports = Vec::new();
        for (network, outcome) in probed {
            match outcome {
                Ok(count) => {
                    self.told.remove(&network);
                    self.budget.spend(&network, count, now);
                    self.figures.probed(count);
                }
                Err(error) => {
                    let text = error.to_string();
                    if self.told.get(&network) != Some(&text) {
                        reports.push(Report::not_ready(&network, &text));
                        self.told.insert(network, text);
                    }
                }
            }
        }
        reports
    }
}
