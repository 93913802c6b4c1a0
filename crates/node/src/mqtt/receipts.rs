//! Acknowledgements owed to the broker, given in the order in which the messages came (MQTT 3.1.1, section 4.6: some
//! brokers end a session over any other order). Pure: it holds what is to be acknowledged and says when.

use std::collections::VecDeque;

/// The number of a message within one session, in order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Arrival(u64);

#[derive(Debug)]
pub(super) struct Receipts<T> {
    first: u64,
    slots: VecDeque<(T, bool)>,
}

impl<T> Receipts<T> {
    pub fn new() -> Self {
        Self { first: 0, slots: VecDeque::new() }
    }

    /// Messages that are not acknowledged.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// A message came.
    pub fn arrived(&mut self, message: T) -> Arrival {
        self.slots.push_back((message, false));
        Arrival(self.first + self.slots.len() as u64 - 1)
    }

    /// Nothing more is to be done for it.
    pub fn settle(&mut self, arrival: Arrival) {
        let index = arrival.0.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        if let Some((_, settled)) = index.and_then(|index| self.slots.get_mut(index)) {
            *settled = true;
        }
    }

    /// The next one to acknowledge, once all before it are.
    pub fn next_due(&mut self) -> Option<T> {
        match self.slots.front() {
            Some((_, true)) => {
                self.first += 1;
                self.slots.pop_front().map(|(message, _)| message)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acknowledgements_keep_the_order_of_arrival_whatever_is_settled_first() {
        let mut receipts = Receipts::new();
        let arrivals: Vec<_> = ["a", "b", "c", "d"].map(|message| receipts.arrived(message)).into();
        receipts.settle(arrivals[2]);
        receipts.settle(arrivals[1]);
        assert_eq!(receipts.next_due(), None);
        receipts.settle(arrivals[0]);
        let due: Vec<_> = std::iter::from_fn(|| receipts.next_due()).collect();
        assert_eq!(due, ["a", "b", "c"]);
        receipts.settle(arrivals[0]);
        receipts.settle(arrivals[3]);
        assert_eq!((receipts.next_due(), receipts.len()), (Some("d"), 0));
    }
}
