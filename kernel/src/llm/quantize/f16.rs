//! IEEE 754 half precision, as bits in a `u16`.

/// The value of an F16.
pub fn f16_to_f32(bits: u16) -> f32 {
    const INFINITY: u32 = 0x7c00;
    // 2^(127 - 15): the difference of the exponents' biases.
    const BIAS: f32 = f32::from_bits((127 + 112) << 23);
    let magnitude = u32::from(bits & 0x7fff);
    let sign = u32::from(bits & 0x8000) << 16;
    // The product is exact, for numbers below the normal ones too.
    let value = (f32::from_bits(magnitude << 13) * BIAS).to_bits();
    let value = if magnitude >= INFINITY { magnitude << 13 | 0x7f80_0000 } else { value };
    f32::from_bits(value | sign)
}

/// The nearest F16, halves to even.
pub fn f32_to_f16(x: f32) -> u16 {
    let bits = x.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    let half = if magnitude > 0x7f80_0000 {
        // Not a number: keep what fits of its payload, and make it quiet.
        0x7e00 | (magnitude >> 13 & 0x3ff)
    } else if magnitude >= (127 + 16) << 23 {
        0x7c00
    } else if magnitude < (127 - 14) << 23 {
        // Below the normal numbers: with 2^(-24 + 23) added, the last bit stands for 2^-24, and
        // the addition does the rounding.
        const SHIFT: f32 = f32::from_bits((127 - 1) << 23);
        (f32::from_bits(magnitude) + SHIFT).to_bits() - SHIFT.to_bits()
    } else {
        // Add just under half of the last place, and the rest if that place is odd. A carry out of
        // the fraction raises the exponent, as it should, up to infinity.
        let odd = magnitude >> 13 & 1;
        (magnitude + 0xfff + odd - ((127 - 15) << 23)) >> 13
    };
    sign | half as u16
}

/// The value of the nearest F16.
pub fn round_to_f16(x: f32) -> f32 {
    f16_to_f32(f32_to_f16(x))
}
