//! The Mersenne Twister MT19937 of Matsumoto and Nishimura (1998), seeded as PyTorch does.
//! (ATen/core/MT19937RNGEngine.h)

const SIZE: usize = 624;
const SHIFT: usize = 397;

/// The generator of 32-bit words.
#[derive(Clone)]
pub(super) struct Mt19937 {
    state: [u32; SIZE],
    /// The next word of the state to hand out; `SIZE` when all have been.
    next: usize,
}

impl Mt19937 {
    /// The generator seeded with Knuth's recurrence.
    pub(super) fn new(seed: u32) -> Self {
        let mut state = [seed; SIZE];
        for i in 1..SIZE {
            let previous = state[i - 1];
            state[i] = 1_812_433_253_u32.wrapping_mul(previous ^ (previous >> 30)).wrapping_add(i as u32);
        }
        Self { state, next: SIZE }
    }

    /// The next 32 random bits.
    pub(super) fn next_u32(&mut self) -> u32 {
        if self.next == SIZE {
            self.twist();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    /// A uniform value in [0, 1) of 24 bits, from one word.
    pub(super) fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 * (1.0 / 16_777_216.0)
    }

    /// A uniform value in [0, 1) of 53 bits, from two words, the upper one first.
    pub(super) fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.next_u32());
        let word = (high << 32) | u64::from(self.next_u32());
        (word & ((1 << 53) - 1)) as f64 * (1.0 / (1_u64 << 53) as f64)
    }

    fn twist(&mut self) {
        for i in 0..SIZE {
            let mixed = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % SIZE] & 0x7fff_ffff);
            let flip = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + SHIFT) % SIZE] ^ (mixed >> 1) ^ flip;
        }
        self.next = 0;
    }
}
