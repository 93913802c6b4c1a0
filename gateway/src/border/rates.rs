//! The rates that a serial line is tried at until a co-processor answers: the one that was told, or the usual ones with the one that answered
//! last at the front. It knows no line and no clock.

/// What co-processors are usually built for, in baud: the most frequent first.
pub const USUAL_BAUD: [u32; 8] = [115_200, 460_800, 921_600, 1_000_000, 57_600, 230_400, 500_000, 2_000_000];

/// What is to be done about a co-processor that does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Silence {
    /// Wait for it: it has answered at this rate, or there is no other.
    Wait,
    /// Try the next rate.
    Next,
    /// Every rate was tried.
    Exhausted,
}

/// The rates of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rates {
    /// Empty for a line without rates.
    order: Vec<u32>,
    at: usize,
    /// Whether it has answered at this rate since it last fell silent.
    answered: bool,
}

impl Rates {
    /// A line that has no rate.
    #[must_use]
    pub fn none() -> Self {
        Self { order: Vec::new(), at: 0, answered: false }
    }

    /// The rate that was told, or all usual ones.
    #[must_use]
    pub fn of_serial(told: Option<u32>) -> Self {
        let order = told.map_or_else(|| USUAL_BAUD.to_vec(), |baud| vec![baud]);
        Self { order, ..Self::none() }
    }

    /// The rate that is to be set now, in baud.
    #[must_use]
    pub fn now(&self) -> Option<u32> {
        self.order.get(self.at).copied()
    }

    /// The rate that it has answered at, if it has.
    #[must_use]
    pub fn found(&self) -> Option<u32> {
        self.now().filter(|_| self.answered)
    }

    /// Whether there is more than one to try.
    #[must_use]
    pub fn is_search(&self) -> bool {
        self.order.len() > 1
    }

    /// The line was opened: it begins at the rate that answered last.
    pub fn begin(&mut self) {
        (self.at, self.answered) = (0, false);
    }

    /// A co-processor has said something at this rate.
    pub fn answered(&mut self) {
        if let Some(tried) = self.order.get_mut(..=self.at) {
            tried.rotate_right(1);
        }
        (self.at, self.answered) = (0, true);
    }

    /// Goes on to the next rate if there is one; otherwise to the first.
    pub fn advance(&mut self) -> bool {
        self.answered = false;
        let more = self.at + 1 < self.order.len();
        self.at = if more { self.at + 1 } else { 0 };
        more
    }

    /// Nothing was said at this rate for as long as is waited.
    pub fn silent(&mut self) -> Silence {
        if std::mem::take(&mut self.answered) || !self.is_search() {
            Silence::Wait
        } else if self.advance() {
            Silence::Next
        } else {
            Silence::Exhausted
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_usual_rate_is_tried_once_and_the_one_that_answered_is_first_from_then_on() {
        for right in USUAL_BAUD {
            let mut rates = Rates::of_serial(None);
            while rates.now() != Some(right) {
                assert_eq!((rates.found(), rates.silent()), (None, Silence::Next));
            }
            rates.answered();
            assert_eq!(rates.found(), Some(right));
            assert_eq!((rates.silent(), rates.now(), rates.found()), (Silence::Wait, Some(right), None));
            rates.begin();
            let mut tried = vec![rates.now().unwrap()];
            while rates.silent() == Silence::Next {
                tried.push(rates.now().unwrap());
            }
            assert_eq!((tried[0], rates.now()), (right, Some(right)));
            tried.sort_unstable();
            let mut all = USUAL_BAUD;
            all.sort_unstable();
            assert_eq!(tried, all);
        }
    }

    #[test]
    fn a_rate_that_was_told_is_kept_and_a_socket_has_none() {
        for (mut rates, baud) in [(Rates::of_serial(Some(9_600)), Some(9_600)), (Rates::none(), None)] {
            assert_eq!((rates.silent(), rates.now(), rates.found()), (Silence::Wait, baud, None));
            rates.answered();
            assert_eq!((rates.found(), rates.silent(), rates.advance()), (baud, Silence::Wait, false));
            assert_eq!(rates.now(), baud);
        }
    }
}
