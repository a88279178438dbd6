//! The Mersenne Twister, which torch draws from on the CPU (Matsumoto and Nishimura, 1998).

const LENGTH: usize = 624;
const SHIFT: usize = 397;

/// The generator with a period of 2^19937 - 1, seeded as `torch.manual_seed` does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mt19937 {
    state: Box<[u32; LENGTH]>,
    /// The next number of the state; at its end a new state is due.
    index: usize,
}

impl Mt19937 {
    /// Seeds it: `init_genrand` of the authors' program.
    pub(crate) fn new(seed: u32) -> Self {
        let mut state = Box::new([seed; LENGTH]);
        for i in 1..LENGTH {
            let last = state[i - 1];
            state[i] = (last ^ (last >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, index: LENGTH }
    }

    /// The next 32 bits.
    pub(crate) fn next_u32(&mut self) -> u32 {
        if self.index == LENGTH {
            self.renew();
        }
        let mut bits = self.state[self.index];
        self.index += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    /// The next 64 bits, the upper half first, as torch's `random64`.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let high = u64::from(self.next_u32());
        high << 32 | u64::from(self.next_u32())
    }

    /// Passes over numbers.
    pub(crate) fn skip(&mut self, mut count: usize) {
        while count > 0 {
            if self.index == LENGTH {
                self.renew();
            }
            let step = count.min(LENGTH - self.index);
            self.index += step;
            count -= step;
        }
    }

    /// Makes the next state. Three loops, none of which wraps around, so that they run across vector lanes.
    fn renew(&mut self) {
        let twist = |this: u32, next: u32| {
            let bits = (this & 0x8000_0000) | (next & 0x7fff_ffff);
            (bits >> 1) ^ ((next & 1).wrapping_neg() & 0x9908_b0df)
        };
        let state = &mut *self.state;
        for i in 0..LENGTH - SHIFT {
            state[i] = state[i + SHIFT] ^ twist(state[i], state[i + 1]);
        }
        for i in LENGTH - SHIFT..LENGTH - 1 {
            state[i] = state[i + SHIFT - LENGTH] ^ twist(state[i], state[i + 1]);
        }
        state[LENGTH - 1] = state[SHIFT - 1] ^ twist(state[LENGTH - 1], state[0]);
        self.index = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_numpy() {
        #[derive(serde::Deserialize)]
        struct Outputs {
            seed: u32,
            indices: Vec<usize>,
            outputs: Vec<u32>,
        }
        #[derive(serde::Deserialize)]
        struct Expected {
            mt19937: Vec<Outputs>,
        }
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/golden/seeds/expected.json");
        let expected: Expected =
            serde_json::from_slice(&std::fs::read(file).expect("expected.json")).expect("expected.json");
        assert!(expected.mt19937.len() >= 3);
        for Outputs { seed, indices, outputs } in expected.mt19937 {
            for (index, output) in indices.into_iter().zip(outputs) {
                let mut generator = Mt19937::new(seed);
                generator.skip(index);
                assert_eq!(generator.next_u32(), output, "seed {seed}, number {index}");
            }
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_standard() {
        // The C++ standard gives the 10000th number for the seed 5489.
        let mut generator = Mt19937::new(5489);
        assert_eq!(generator.next_u32(), 3_499_211_612);
        let mut skipped = generator.clone();
        for _ in 1..9_999 {
            generator.next_u32();
        }
        assert_eq!(generator.next_u32(), 4_123_659_995);
        skipped.skip(9_998);
        assert_eq!(skipped.next_u32(), 4_123_659_995);
        assert_eq!(skipped.next_u64() >> 32, u64::from(generator.next_u32()));
    }
}
