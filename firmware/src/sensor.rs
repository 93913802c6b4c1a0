//! What shows values whenever it is read: one driver, or several behind one schema. When it is read, and what becomes of the values, is the
//! sampler's business.

use tidelog_record::uplink::Reading;

/// A sensor, or several: a pair of sensors is one, the values of the second behind those of the first.
pub trait Sensor {
    /// How many values it shows.
    const VALUES: usize;

    /// Reads it. There is room for [`VALUES`](Self::VALUES), each `None` before; one that can't be read stays so.
    fn read(&mut self, values: &mut [Option<Reading>]);
}

impl<A: Sensor, B: Sensor> Sensor for (A, B) {
    const VALUES: usize = A::VALUES + B::VALUES;

    fn read(&mut self, values: &mut [Option<Reading>]) {
        let (first, second) = values.split_at_mut(A::VALUES.min(values.len()));
        self.0.read(first);
        self.1.read(second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Shows<const N: usize>(i64);

    impl<const N: usize> Sensor for Shows<N> {
        const VALUES: usize = N;

        fn read(&mut self, values: &mut [Option<Reading>]) {
            assert_eq!(values.len(), N);
            values.fill(Some(Reading::I64(self.0)));
        }
    }

    #[test]
    fn several_sensors_show_their_values_one_behind_the_other() {
        let mut sensors = ((Shows::<2>(7), Shows::<0>(8)), Shows::<3>(9));
        let mut values = [None; 5];
        sensors.read(&mut values);
        assert_eq!(values, [7, 7, 9, 9, 9].map(|value| Some(Reading::I64(value))));
    }
}
