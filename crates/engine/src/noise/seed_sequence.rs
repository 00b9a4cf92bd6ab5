//! NumPy's `SeedSequence`: independent 32-bit seeds from one seed and a place in a tree, by M. E. O'Neill's
//! `seed_seq_fe` hashing. (numpy/random/bit_generator.pyx)

const MULTIPLIER_A: u32 = 0x931e_8875;
const MULTIPLIER_B: u32 = 0x58f3_8ded;

/// `numpy.random.SeedSequence(entropy, spawn_key=spawn_key, pool_size=pool_size).generate_state(N)`.
pub(super) fn generate_state<const N: usize>(entropy: u64, spawn_key: &[u64], pool_size: usize) -> [u32; N] {
    let pool = mixed_pool(&assembled(entropy, spawn_key, pool_size), pool_size);
    let mut constant = 0x8b51_f9dd_u32;
    std::array::from_fn(|i| {
        let mut word = pool[i % pool_size] ^ constant;
        constant = constant.wrapping_mul(MULTIPLIER_B);
        word = word.wrapping_mul(constant);
        word ^ (word >> 16)
    })
}

/// The seed's words, then the key's. With a key the seed is padded to the pool's size, so that no two pairs collide.
fn assembled(entropy: u64, spawn_key: &[u64], pool_size: usize) -> Vec<u32> {
    let mut words = Vec::with_capacity(pool_size + 2 * spawn_key.len());
    push_words(&mut words, entropy);
    if !spawn_key.is_empty() && words.len() < pool_size {
        words.resize(pool_size, 0);
    }
    for key in spawn_key {
        push_words(&mut words, *key);
    }
    words
}

/// A number as 32-bit words, the lowest first, without leading zero words; zero is one word.
fn push_words(words: &mut Vec<u32>, number: u64) {
    words.push(number as u32);
    if number >> 32 != 0 {
        words.push((number >> 32) as u32);
    }
}

fn mixed_pool(words: &[u32], pool_size: usize) -> Vec<u32> {
    let mut constant = 0x43b0_d7e5_u32;
    let mut hash = |word: u32| {
        let word = word ^ constant;
        constant = constant.wrapping_mul(MULTIPLIER_A);
        let word = word.wrapping_mul(constant);
        word ^ (word >> 16)
    };
    let mix = |x: u32, y: u32| {
        let word = 0xca01_f9dd_u32.wrapping_mul(x).wrapping_sub(0x4973_f715_u32.wrapping_mul(y));
        word ^ (word >> 16)
    };
    let mut pool: Vec<u32> = (0..pool_size).map(|i| hash(words.get(i).copied().unwrap_or(0))).collect();
    for source in 0..pool_size {
        for target in 0..pool_size {
            if source != target {
                pool[target] = mix(pool[target], hash(pool[source]));
            }
        }
    }
    for word in words.iter().skip(pool_size) {
        for slot in &mut pool {
            *slot = mix(*slot, hash(*word));
        }
    }
    pool
}
