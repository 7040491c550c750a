//! Writes an image to a card in the computer's reader.

#[cfg(target_os = "linux")]
mod disks;
#[cfg(target_os = "linux")]
mod write;

use std::path::PathBuf;

#[cfg(target_os = "linux")]
pub use write::Device;

/// Command-line options for the card.
#[derive(clap::Args)]
pub struct DeviceOptions {
    /// Write the image to this card too, such as /dev/sdX or /dev/mmcblkX; asks first (Linux only)
    #[arg(long, value_name = "DEVICE")]
    device: Option<PathBuf>,
    /// Do not ask before the card is overwritten
    #[arg(long, requires = "device")]
    yes: bool,
    /// Allow a disk that does not look like a card, such as a fixed one
    #[arg(long, requires = "device")]
    any_disk: bool,
}

impl DeviceOptions {
    /// Checks the card that is to be written; `None` if none is named.
    #[cfg(target_os = "linux")]
    pub fn open(&self) -> anyhow::Result<Option<Device>> {
        let disk = |path: &PathBuf| Device::find(path, self.any_disk, self.yes);
        self.device.as_ref().map(disk).transpose()
    }

    /// Refuses a card: nothing is known of disks on systems other than Linux.
    #[cfg(not(target_os = "linux"))]
    pub fn open(&self) -> anyhow::Result<Option<Device>> {
        anyhow::ensure!(
            self.device.is_none(),
            "--device works on Linux only: write the image with Raspberry Pi Imager (\"Use custom\")"
        );
        let _ = (self.yes, self.any_disk);
        Ok(None)
    }
}

/// A card, which exists only on Linux.
#[cfg(not(target_os = "linux"))]
pub enum Device {}

#[cfg(not(target_os = "linux"))]
impl Device {
    /// Never called.
    pub fn confirm(&self, _: u64) -> anyhow::Result<()> {
        match *self {}
    }

    /// Never called either.
    pub fn write(&self, _: &std::path::Path) -> anyhow::Result<()> {
        match *self {}
    }
}
