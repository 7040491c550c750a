//! The upper half of an F32, as bits in a `u16`: 8 bits of exponent, 7 of fraction.

/// The value of a BF16.
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest BF16, halves to even.
pub fn f32_to_bf16(x: f32) -> u16 {
    let bits = x.to_bits();
    if x.is_nan() {
        // Keep what fits of its payload, and make it quiet.
        return (bits >> 16) as u16 | 0x40;
    }
    // Just under half of the last place, and the rest if that place is odd. A carry raises the
    // exponent, as it should, up to infinity.
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The value of the nearest BF16.
pub fn round_to_bf16(x: f32) -> f32 {
    bf16_to_f32(f32_to_bf16(x))
}
