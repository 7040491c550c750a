use super::*;

#[test]
fn types_have_the_names_of_llama_cpp() {
    for (name, kind) in
        [("f32", CacheType::F32), ("f16", CacheType::F16), ("q8_0", CacheType::Q8_0)]
    {
        assert_eq!((name.parse(), kind.name()), (Ok(kind), name));
    }
    for name in ["", "F16", "q8_1", "q4_0"] {
        assert_eq!(name.parse::<CacheType>(), Err(()));
    }
    assert_eq!(CacheType::default(), CacheType::F16);
}

#[test]
fn only_wide_heads_in_q8_0_are_rotated() {
    for (kind, head_size, keys, values) in [
        (CacheType::F16, 64, None, None),
        (CacheType::F32, 128, None, None),
        (CacheType::Q8_0, 32, None, None),
        (CacheType::Q8_0, 96, None, None),
        (CacheType::Q8_0, 64, Some(64), Some(64)),
        (CacheType::Q8_0, 192, Some(64), Some(64)),
        (CacheType::Q8_0, 256, Some(256), Some(64)),
    ] {
        let shape = KvShape { kind, n_head_kv: 3, head_size, kept: 13, window: 13 };
        let rotation = shape.rotation();
        assert_eq!(rotation, HadamardRotation { keys, values }, "{kind}, {head_size}");
    }
}
