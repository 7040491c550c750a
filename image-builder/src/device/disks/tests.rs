use std::os::unix::fs::symlink;

use super::*;

/// A system with a fixed disk that it runs from, and a card in a USB reader.
struct Fake {
    root: tempfile::TempDir,
}

const FIXED: (u32, u32) = (259, 0);
const CARD: (u32, u32) = (8, 16);
const CARDS_PARTITION: (u32, u32) = (8, 17);
const USB: &str = "sys/devices/pci0000:00/usb2/2-1/host6/block/sdb";
const NVME: &str = "sys/devices/pci0000:00/nvme/nvme0/nvme0n1";

impl Fake {
    fn new() -> Fake {
        let fake = Fake { root: tempfile::tempdir().unwrap() };
        fake.disk(NVME, "259:0", "0", 1 << 30);
        fake.partition(&format!("{NVME}/nvme0n1p2"), "259:2", "2");
        fake.disk(USB, "8:16", "1", 62_333_952);
        fake.partition(&format!("{USB}/sdb1"), "8:17", "1");
        fake.write(&format!("{USB}/device/vendor"), "Generic \n");
        fake.write(&format!("{USB}/device/model"), "MassStorageClass\n");
        fake.write("proc/self/mountinfo", "23 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n");
        fake.write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n");
        fake
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, number: &str, folder: &str) {
        let links = self.root.path().join("sys/dev/block");
        fs::create_dir_all(&links).unwrap();
        symlink(self.root.path().join(folder), links.join(number)).unwrap();
    }

    fn disk(&self, folder: &str, number: &str, removable: &str, sectors: u64) {
        self.write(&format!("{folder}/dev"), &format!("{number}\n"));
        self.write(&format!("{folder}/removable"), &format!("{removable}\n"));
        self.write(&format!("{folder}/ro"), "0\n");
        self.write(&format!("{folder}/size"), &format!("{sectors}\n"));
        fs::create_dir_all(self.root.path().join(folder).join("holders")).unwrap();
        self.link(number, folder);
    }

    fn partition(&self, folder: &str, number: &str, index: &str) {
        self.write(&format!("{folder}/dev"), &format!("{number}\n"));
        self.write(&format!("{folder}/partition"), &format!("{index}\n"));
        self.link(number, folder);
    }

    fn mount(&self, line: &str) {
        let root = "23 1 259:2 / / rw - ext4 /dev/nvme0n1p2 rw\n";
        self.write("proc/self/mountinfo", &format!("{root}{line}\n"));
    }

    fn check(&self, number: (u32, u32), any_disk: bool) -> Result<Disk> {
        System::fake(self.root.path()).check(number, "/dev/X", any_disk)
    }

    #[track_caller]
    fn refuses(&self, number: (u32, u32), says: &str) {
        // A disk in use is refused even with `any_disk`.
        for any_disk in [false, true] {
            let error = format!("{:#}", self.check(number, any_disk).unwrap_err());
            assert!(error.contains(says), "no {says:?} in: {error}");
        }
    }
}

#[test]
fn a_card_is_taken_and_named() {
    let disk = Fake::new().check(CARD, false).unwrap();
    assert_eq!(disk.bytes, 62_333_952 * 512);
    assert_eq!(disk.description, "Generic MassStorageClass 30 GiB");
}

#[test]
fn what_holds_the_running_system_is_refused() {
    let fake = Fake::new();
    fake.refuses(FIXED, "/dev/X holds the running system (nvme0n1p2 is /)");
    // Btrfs has numbers of its own, so that the source decides.
    fake.write("proc/self/mountinfo", "23 1 0:31 /@ / rw shared:1 - btrfs /dev/nvme0n1p2 rw\n");
    fake.refuses(FIXED, "holds the running system");
    fake.write("proc/self/mountinfo", "");
    fake.write("proc/swaps", "Filename\tType\n/dev/nvme0n1p2 partition 1 0 -2\n");
    fake.refuses(FIXED, "nvme0n1p2 is swap");
    fake.write("proc/swaps", "");
    fs::create_dir_all(fake.root.path().join(NVME).join("holders/dm-0")).unwrap();
    fake.refuses(FIXED, "nvme0n1 belongs to dm-0");
}

#[test]
fn a_mounted_card_is_refused_until_it_is_not() {
    let fake = Fake::new();
    fake.mount("31 23 8:17 / /media/my\\040card rw - vfat /dev/sdb1 rw");
    fake.refuses(CARD, "sdb1 is mounted at /media/my card. First: umount /media/my card");
    fake.mount("31 23 8:16 / /mnt rw - vfat /dev/sdb rw");
    fake.refuses(CARD, "sdb is mounted at /mnt");
    fake.mount("31 23 8:1 / /mnt rw - vfat /dev/sda1 rw");
    fake.check(CARD, false).unwrap();
}

#[test]
fn a_partition_is_refused_with_the_name_of_its_card() {
    Fake::new().refuses(CARDS_PARTITION, "is a partition: name the whole card, /dev/sdb");
}

#[test]
fn a_locked_or_empty_reader_is_refused() {
    let fake = Fake::new();
    fake.write(&format!("{USB}/ro"), "1\n");
    fake.refuses(CARD, "write-protected");
    fake.write(&format!("{USB}/ro"), "0\n");
    fake.write(&format!("{USB}/size"), "0\n");
    fake.refuses(CARD, "there is no card in /dev/X");
    fake.refuses((9, 9), "is no disk that this system knows");
}

#[test]
fn a_fixed_disk_is_taken_only_if_someone_insists() {
    let fake = Fake::new();
    fake.mount("");
    fake.write("proc/self/mountinfo", "");
    let error = fake.check(FIXED, false).unwrap_err().to_string();
    assert!(error.contains("add --any-disk"), "{error}");
    fake.check(FIXED, true).unwrap();

    // Cards in a built-in reader are not "removable", but of type SD. eMMC is soldered.
    let mmc = "sys/devices/platform/mmc0/mmc0:1234/block/mmcblk0";
    fake.disk(mmc, "179:0", "0", 7);
    fake.write(&format!("{mmc}/device/type"), "SD\n");
    fake.check((179, 0), false).unwrap();
    fake.write(&format!("{mmc}/device/type"), "MMC\n");
    assert!(fake.check((179, 0), false).is_err());
    // A USB disk that calls itself fixed is accepted.
    fake.write(&format!("{USB}/removable"), "0\n");
    fake.check(CARD, false).unwrap();
    // A name such as `usbhid` is no USB bus.
    let other = "sys/devices/usbish/block/sdc";
    fake.disk(other, "8:32", "0", 7);
    assert!(fake.check((8, 32), false).is_err());
}
