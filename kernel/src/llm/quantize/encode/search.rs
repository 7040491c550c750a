//! Searches for the scale of a group of weights with the smallest error.

use super::super::activations::{first_of_largest, round_half_even};

/// Groups whose largest weight is below this become zeros.
pub const TINY: f32 = 1e-15;

/// Integers, their scale, and their minimum: `q * scale - min`.
pub struct Found<const N: usize> {
    pub scale: f32,
    pub min: f32,
    pub q: [u8; N],
}

/// The nearest integer, within bounds.
pub fn nearest(x: f32, least: i32, most: i32) -> i32 {
    round_half_even(x).min(most).max(least)
}

/// For Q6_K: integers from -32 to 31, stored with 32 added.
///
/// A weight's error counts by the weight's square. The search tries scales that differ by up to a
/// thirty-second.
pub fn signed_6_bits(x: &[f32; 16]) -> Found<16> {
    const HALF: i32 = 32;
    let max = first_of_largest(x);
    if max.abs() < TINY {
        return Found { scale: 0.0, min: 0.0, q: [0; 16] };
    }
    let round = |inverse: f32| x.map(|x| nearest(inverse * x, -HALF, HALF - 1));
    // The sums of products of weights and numbers, and of squares of numbers.
    let sums = |q: &[i32; 16]| {
        x.iter().zip(q).fold((0.0, 0.0), |(sum_xq, sum_qq), (&x, &q)| {
            let (weight, q) = (x * x, q as f32);
            (sum_xq + weight * x * q, sum_qq + weight * q * q)
        })
    };
    let mut best_q = round(-(HALF as f32) / max);
    let (sum_xq, sum_qq) = sums(&best_q);
    let mut scale = if sum_qq == 0.0 { 0.0 } else { sum_xq / sum_qq };
    let mut best = scale * sum_xq;
    for step in (-9..=9).filter(|&step| step != 0) {
        let q = round(-(HALF as f32 + 0.1 * step as f32) / max);
        let (sum_xq, sum_qq) = sums(&q);
        if sum_qq > 0.0 && sum_xq * sum_xq > best * sum_qq {
            scale = sum_xq / sum_qq;
            best = scale * sum_xq;
            best_q = q;
        }
    }
    Found { scale, min: 0.0, q: best_q.map(|q| (q + HALF) as u8) }
}

/// For Q3_K: integers from -4 to 3, stored with 4 added.
///
/// A weight's error counts by the weight's square. The search changes one integer at a time while
/// the error falls.
pub fn signed_3_bits(x: &[f32; 16]) -> Found<16> {
    const HALF: i32 = 4;
    let max = first_of_largest(x);
    if max.abs() < TINY {
        return Found { scale: 0.0, min: 0.0, q: [0; 16] };
    }
    let inverse = -(HALF as f32) / max;
    let mut q = x.map(|x| nearest(inverse * x, -HALF, HALF - 1));
    let (mut sum_xq, mut sum_qq) = (0.0, 0.0);
    for (&x, &q) in x.iter().zip(&q) {
        let (weight, q) = (x * x, q as f32);
        sum_xq += weight * x * q;
        sum_qq += weight * q * q;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (&x, q) in x.iter().zip(&mut q) {
            let (weight, old) = (x * x, *q as f32);
            // The sums without this weight.
            let other_xq = sum_xq - weight * x * old;
            if other_xq <= 0.0 {
                continue;
            }
            let other_qq = sum_qq - weight * old * old;
            let new = nearest(x * other_qq / other_xq, -HALF, HALF - 1);
            if new == *q {
                continue;
            }
            let new_xq = other_xq + weight * x * new as f32;
            let new_qq = other_qq + weight * new as f32 * new as f32;
            if new_qq > 0.0 && new_xq * new_xq * sum_qq > sum_xq * sum_xq * new_qq {
                *q = new;
                (sum_xq, sum_qq) = (new_xq, new_qq);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    let scale = if sum_qq > 0.0 { sum_xq / sum_qq } else { 0.0 };
    Found { scale, min: 0.0, q: q.map(|q| (q + HALF) as u8) }
}

/// How [`with_min`] searches.
pub struct Search {
    /// The largest whole number.
    pub most: i32,
    /// The first scale maps the range to `most + start` steps, each further one to 0.1 more.
    pub start: f32,
    /// The number of further scales.
    pub steps: i32,
    /// The cost of an error.
    pub cost: fn(f32) -> f32,
}

/// Integers from 0 with a scale and a minimum, which is never above 0.
///
/// Errors count by `weights`.
pub fn with_min<const N: usize>(x: &[f32; N], weights: &[f32; N], search: &Search) -> Found<N> {
    let (mut min, mut max) = (x[0], x[0]);
    let (mut sum_w, mut sum_x) = (0.0, 0.0);
    for (&x, &weight) in x.iter().zip(weights) {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
        sum_w += weight;
        sum_x += weight * x;
    }
    if min > 0.0 {
        min = 0.0;
    }
    if max == min {
        return Found { scale: 0.0, min: -min, q: [0; N] };
    }
    let round = |inverse: f32, min: f32| x.map(|x| nearest(inverse * (x - min), 0, search.most));
    let error = |q: &[i32; N], scale: f32, min: f32| {
        let mut error = 0.0;
        for ((&x, &weight), &q) in x.iter().zip(weights).zip(q) {
            error += weight * (search.cost)(scale * q as f32 + min - x);
        }
        error
    };
    let inverse = search.most as f32 / (max - min);
    let mut scale = 1.0 / inverse;
    let mut best_q = round(inverse, min);
    let mut best = error(&best_q, scale, min);
    for step in 0..=search.steps {
        // Each try starts from the best minimum so far.
        let inverse = (search.start + 0.1 * step as f32 + search.most as f32) / (max - min);
        let q = round(inverse, min);
        let (mut sum_q, mut sum_qq, mut sum_xq) = (0.0, 0.0, 0.0);
        for ((&x, &weight), &q) in x.iter().zip(weights).zip(&q) {
            let q = q as f32;
            sum_q += weight * q;
            sum_qq += weight * q * q;
            sum_xq += weight * q * x;
        }
        // The scale and minimum of the smallest sum of squares for these numbers.
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant <= 0.0 {
            continue;
        }
        let mut new_scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
        let mut new_min = (sum_qq * sum_x - sum_q * sum_xq) / determinant;
        if new_min > 0.0 {
            new_min = 0.0;
            new_scale = sum_xq / sum_qq;
        }
        let new = error(&q, new_scale, new_min);
        if new < best {
            (best, best_q, scale, min) = (new, q, new_scale, new_min);
        }
    }
    Found { scale, min: -min, q: best_q.map(|q| q as u8) }
}
