//! How many addresses a network keeps in stock.

/// What the configuration says (`pool.low`, `pool.high`, `pool.max`), in addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    /// With as many idle addresses or fewer, more are claimed.
    pub low: u32,
    /// As many idle addresses are there after that.
    pub high: u32,
    /// The network never holds more than this.
    pub max: u32,
}

/// What the network has now, in addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Granted, and no pod has them.
    pub idle: u32,
    /// Pods have them.
    pub used: u32,
    /// ADDs that wait for one.
    pub waiting: u32,
}

/// The marks of a pool that has been found without a free address within five minutes.
const SCARCE: Marks = Marks { low: 1, high: 2, max: u32::MAX };

impl Marks {
    /// The marks that hold now. A stock that others miss is kept small.
    pub fn of_now(self, scarce: bool) -> Marks {
        if !scarce {
            return self;
        }
        Marks { low: self.low.min(SCARCE.low), high: self.high.min(SCARCE.high), max: self.max }
    }

    /// How many addresses to claim. It is computed each time, so an answer that is lost costs nothing.
    pub fn wanted(self, usage: Usage) -> u32 {
        let Usage { idle, used, waiting } = usage;
        if waiting == 0 && idle > self.low {
            return 0;
        }
        let room = self.max.saturating_sub(idle.saturating_add(used));
        (waiting + self.high.max(1)).saturating_sub(idle).min(room)
    }

    /// How many idle addresses to give back. The band between the marks keeps a network from giving back what
    /// it claims the next minute.
    pub fn surplus(self, usage: Usage) -> u32 {
        if usage.waiting > 0 { 0 } else { usage.idle.saturating_sub(self.high.max(1).saturating_mul(2)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: Marks = Marks { low: 4, high: 16, max: 40 };

    fn usage(idle: u32, used: u32, waiting: u32) -> Usage {
        Usage { idle, used, waiting }
    }

    #[test]
    fn stock_is_filled_up_to_high_and_never_beyond_max() {
        assert_eq!(MARKS.wanted(usage(5, 0, 0)), 0);
        assert_eq!(MARKS.wanted(usage(4, 0, 0)), 12);
        assert_eq!(MARKS.wanted(usage(0, 10, 3)), 19);
        assert_eq!(MARKS.wanted(usage(0, 30, 3)), 10);
        assert_eq!(MARKS.wanted(usage(0, 40, 3)), 0);
        assert_eq!(MARKS.of_now(true).wanted(usage(0, 0, 3)), 5);
    }

    #[test]
    fn surplus_goes_back_beyond_twice_high() {
        assert_eq!(MARKS.surplus(usage(32, 0, 0)), 0);
        assert_eq!(MARKS.surplus(usage(33, 0, 0)), 1);
        assert_eq!(MARKS.surplus(usage(33, 0, 1)), 0);
        assert_eq!(MARKS.of_now(true).surplus(usage(5, 0, 0)), 1);
    }

    #[test]
    fn what_is_claimed_is_never_surplus() {
        for idle in 0..100 {
            let wanted = MARKS.wanted(usage(idle, 0, 0));
            assert_eq!(MARKS.surplus(usage(idle + wanted, 0, 0)).min(wanted), 0);
        }
    }
}
