use std::fs::File;
use std::io::{Seek, SeekFrom, Write};

use super::*;
use crate::volume::{Notes, Volume};

const IDENTITY: Identity =
    Identity { label: *b"TEST       ", id: 0x1234_5678, sectors_before: 8192 };
const MIB: u64 = 1 << 20;

fn spec(path: &str, bytes: u64) -> FileSpec {
    FileSpec { path: path.into(), bytes: bytes as u32 }
}

/// A file with the volume, whose files are all zeros.
fn written(layout: &Layout) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(layout.geometry.bytes).unwrap();
    for (start, bytes) in &layout.metadata {
        file.seek(SeekFrom::Start(*start)).unwrap();
        file.write_all(bytes).unwrap();
    }
    file
}

#[test]
fn clusters_are_as_large_as_the_kind_of_volume_allows() {
    let kind = |mib: u64| {
        let geometry = Geometry::of_size(mib * MIB);
        (geometry.kind, geometry.cluster >> 10)
    };
    assert_eq!(kind(8), (Kind::Fat16, 1));
    assert_eq!(kind(17), (Kind::Fat16, 4));
    assert_eq!(kind(511), (Kind::Fat16, 32));
    assert_eq!(kind(512), (Kind::Fat32, 4));
    assert_eq!(kind(641), (Kind::Fat32, 8));
    assert_eq!(kind(2 << 10), (Kind::Fat32, 16));
    assert_eq!(kind(2100), (Kind::Fat32, 32));
    assert_eq!(kind(2 << 20), (Kind::Fat32, 32));
}

/// The specification's formulas on the boot sector give the planned geometry.
///
/// The tables have an entry for each cluster, and nothing lies outside the volume.
#[test]
fn geometry_holds_together() {
    for bytes in (0..4001).map(|i| SMALLEST + i * 613 * 512) {
        let geometry = Geometry::of_size(bytes);
        let cluster = u64::from(geometry.cluster);
        let clusters = u64::from(geometry.clusters);
        let data_start = geometry.cluster_start(CLUSTERS_FROM);
        let entry = if geometry.kind == Kind::Fat16 { 2 } else { 4 };
        assert_eq!(clusters, (bytes - data_start) / cluster, "{geometry:?}");
        assert_eq!(geometry.kind == Kind::Fat32, clusters >= 65525, "{geometry:?}");
        assert!((4085..0x0fff_fff5).contains(&clusters), "{geometry:?}");
        assert!((clusters + 2) * entry <= geometry.table_sectors * 512, "{geometry:?}");
        assert_eq!(data_start % cluster.max(4096), 0, "{geometry:?}");
    }
}

/// Sizes around each change of the volume's kind or the clusters' size.
#[test]
fn what_fits_is_found_again_where_it_was_put() {
    let sizes = [0, 1, 511, 1025, 5_900_003, 8 * MIB - 1, 31 * MIB + 1, 509 * MIB, 511 * MIB];
    for size in sizes {
        let files = [
            spec("anchorite.toml", 73),
            spec("models/empty.gguf", 0),
            spec("models/tiny.gguf", size),
            spec("models/tiny.gguf.sha256", 977),
        ];
        let layout = lay_out(&files, None, IDENTITY).unwrap();
        let data: u64 = files.iter().map(|file| u64::from(file.bytes)).sum();
        assert!(layout.geometry.bytes < data + data / 64 + SMALLEST + MIB, "{:?}", layout.geometry);

        let notes = Notes::default();
        let volume = Volume::mount_at(written(&layout), 0, &notes).unwrap();
        let stats = volume.fs().stats().unwrap();
        assert_eq!(stats.total_clusters(), layout.geometry.clusters);
        assert_eq!(stats.cluster_size(), layout.geometry.cluster);
        assert_eq!(volume.fs().volume_label(), "TEST");
        let listed: Vec<_> = files.iter().map(|f| (f.path.clone(), f.bytes.into())).collect();
        assert_eq!(volume.files().unwrap(), listed);
        for (file, &start) in files.iter().zip(&layout.starts) {
            let content = volume.read_file(&file.path, |_| ()).unwrap();
            let runs: Vec<_> = content.extents.iter().map(|run| (run.start, run.bytes)).collect();
            match file.bytes {
                0 => assert_eq!(runs, []),
                bytes => assert_eq!(runs, [(start, u64::from(bytes))], "{}", file.path),
            }
        }
    }
}

#[test]
fn folders_of_many_long_names_take_many_clusters() {
    let names: Vec<String> =
        (0..211).map(|i| format!("models/a rather long name, Grüße {i:>150}.gguf")).collect();
    let files: Vec<_> = names.iter().map(|name| spec(name, 7)).collect();
    let layout = lay_out(&files, None, IDENTITY).unwrap();
    let notes = Notes::default();
    let volume = Volume::mount_at(written(&layout), 0, &notes).unwrap();
    let listed = volume.files().unwrap();
    assert!(listed.iter().map(|(path, _)| path).eq(&names), "{listed:?}");

    // fatfs tells two names apart only if their short names differ too.
    let models = volume.fs().root_dir().open_dir("models").unwrap();
    let mut short: Vec<_> = models.iter().map(|e| e.unwrap().short_file_name()).collect();
    let count = short.len();
    short.sort();
    short.dedup();
    assert_eq!(short.len(), count);
    assert!(short.contains(&"ARATHE~1.GGU".to_owned()), "{short:?}");
    assert!(short.contains(&"ARAT~211.GGU".to_owned()), "{short:?}");
}

#[test]
fn a_volume_of_a_given_size_says_what_it_lacks() {
    let files = [spec("models/tiny.gguf", 23 * MIB)];
    let needed = lay_out(&files, None, IDENTITY).unwrap().geometry.bytes;
    let error = lay_out(&files, Some(16 * MIB), IDENTITY).unwrap_err();
    assert_eq!(error, Misfit::TooSmall { needed });
    assert_eq!(lay_out(&files, Some(needed), IDENTITY).unwrap().geometry.bytes, needed);
    let roomy = lay_out(&files, Some(1 << 30), IDENTITY).unwrap();
    assert_eq!((roomy.geometry.bytes, roomy.geometry.kind), (1 << 30, Kind::Fat32));
}

#[test]
fn there_is_a_largest_volume() {
    let most: Vec<_> =
        (0..512).map(|i| spec(&format!("models/{i}.gguf"), u32::MAX.into())).collect();
    assert_eq!(lay_out(&most, None, IDENTITY).unwrap_err(), Misfit::TooMuch);
    let geometry = lay_out(&most[..503], None, IDENTITY).unwrap().geometry;
    assert!(geometry.bytes > 503 * (4 << 30) && geometry.bytes <= LARGEST);
}
