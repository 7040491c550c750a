//! Wake-up sources of idle cores: a registry over the interrupt controller.
//!
//! An idle core sleeps in `wfi`. An interrupt ends the sleep, though no core ever takes an
//! interrupt. A device registers an interrupt that may end a sleep, and an idle core knows none of
//! these devices:
//!
//! - Each core has its own private interrupts, such as the timer's. These are registered before the
//!   cores are set up ([`Registry::register_private`]). Each core is woken by its own interrupts.
//! - A [`Source`] is an interrupt that all cores share. A source wakes the core that listens to it,
//!   until the core ignores the source.
//!
//! Without a supported interrupt controller, `wfe` naps of the timer's event stream replace all
//! interrupts.

use arrayvec::ArrayVec;
use spin::Once;

use super::irq::{InterruptController, IrqError};
use crate::runtime::arch::lock::SpinLock;
use crate::runtime::machine::Interrupt;

/// Maximum number of private interrupts of a core.
const MAX_PRIVATE: usize = 4;

/// The interrupt controller, and the private interrupts that wake each core.
#[derive(Debug)]
pub struct Registry<C> {
    controller: Once<C>,
    private: SpinLock<ArrayVec<Interrupt, MAX_PRIVATE>>,
}

impl<C: InterruptController> Registry<C> {
    /// An empty registry, without controller and interrupts.
    #[expect(clippy::new_without_default, reason = "it lives in a static")]
    pub const fn new() -> Self {
        Registry { controller: Once::new(), private: SpinLock::new(ArrayVec::new_const()) }
    }

    /// Registers a private interrupt that wakes each core set up from now on.
    ///
    /// # Panics
    /// The registry has no room for the interrupt.
    pub fn register_private(&self, interrupt: Interrupt) {
        self.private.lock().push(interrupt);
    }

    /// Sets up the calling core's part of `controller`, and keeps the controller.
    ///
    /// # Errors
    /// Those of the controller. The controller is not kept then.
    pub fn start(&self, controller: C, core: usize, mpidr: u64) -> Result<(), IrqError> {
        self.set_up_part(&controller, core, mpidr)?;
        self.controller.call_once(|| controller);
        Ok(())
    }

    /// The controller; `None` without a supported one, or before [`Self::start`].
    pub fn controller(&self) -> Option<&C> {
        self.controller.get()
    }

    /// Sets up another core's part of the controller; `None` without a controller.
    pub fn set_up_core(&self, core: usize, mpidr: u64) -> Option<Result<(), IrqError>> {
        self.controller().map(|controller| self.set_up_part(controller, core, mpidr))
    }

    /// Lets other cores and the private interrupts end the calling core's sleep.
    fn set_up_part(&self, controller: &C, core: usize, mpidr: u64) -> Result<(), IrqError> {
        controller.init_core(core, mpidr)?;
        self.private.lock().iter().try_for_each(|&interrupt| controller.enable(interrupt, core))
    }

    /// Lets `source` end the sleep of `core`.
    ///
    /// The result is false if nothing will end the sleep, because the source has no known
    /// interrupt.
    ///
    /// # Errors
    /// Those of the controller.
    pub fn listen(&self, source: &Source, core: usize) -> Result<bool, IrqError> {
        match (self.controller(), source.0.get()) {
            (Some(controller), Some(&interrupt)) => {
                controller.enable(interrupt, core).map(|()| true)
            }
            (Some(_), None) => Ok(false),
            // Without a controller the cores only nap, and poll by themselves.
            (None, _) => Ok(true),
        }
    }

    /// Stops `source` from ending any core's sleep.
    ///
    /// An interrupt that its device raises meanwhile waits at the controller.
    pub fn ignore(&self, source: &Source) {
        if let (Some(controller), Some(&interrupt)) = (self.controller(), source.0.get()) {
            controller.disable(interrupt);
        }
    }
}

/// The interrupt of a device for which a core may wait.
///
/// An example is the interrupt of the console's receiver.
#[derive(Debug)]
pub struct Source(Once<Interrupt>);

impl Source {
    /// A source whose interrupt is not known yet.
    #[expect(clippy::new_without_default, reason = "it lives in a static")]
    pub const fn new() -> Self {
        Source(Once::new())
    }

    /// Sets the interrupt of the device; the first call counts.
    pub fn register(&self, interrupt: Interrupt) {
        self.0.call_once(|| interrupt);
    }
}

#[cfg(target_os = "none")]
pub use of_this_machine::*;

#[cfg(target_os = "none")]
mod of_this_machine {
    use core::arch::asm;

    use super::{InterruptController, IrqError, Registry, Source};
    use crate::runtime::arch::{this_core, time};
    use crate::runtime::dev::irq::{Controller, CoreRegisters};
    use crate::runtime::dev::mmio::Mmio;

    /// The registry of this machine.
    pub static REGISTRY: Registry<Controller<Mmio, CoreRegisters>> = Registry::new();

    /// Sets up the wake-up sources of the calling core, which is not the boot core.
    ///
    /// # Errors
    /// Those of the interrupt controller: the core would not wake from sleep.
    pub fn set_up_core() -> Result<(), IrqError> {
        let set_up = REGISTRY.set_up_core(this_core::current(), this_core::mpidr());
        set_up.unwrap_or_else(|| {
            time::start_event_stream();
            Ok(())
        })
    }

    /// Lets `source` end the calling core's sleep: see [`Registry::listen`].
    ///
    /// # Errors
    /// Those of the interrupt controller.
    pub fn listen(source: &Source) -> Result<bool, IrqError> {
        REGISTRY.listen(source, this_core::current())
    }

    /// Stops `source` from ending any core's sleep: see [`Registry::ignore`].
    pub fn ignore(source: &Source) {
        REGISTRY.ignore(source);
    }

    /// Wakes `core`.
    pub fn wake(core: usize) {
        match REGISTRY.controller() {
            Some(controller) => controller.send_wake(core),
            // SAFETY: the instruction wakes cores from `wfe`, and accesses nothing.
            None => unsafe { asm!("dsb ish", "sev", options(nostack)) },
        }
    }

    /// Sleeps until a source may have woken the calling core, or until `deadline_us`.
    pub fn sleep(deadline_us: Option<u64>) {
        let Some(controller) = REGISTRY.controller() else {
            // SAFETY: the instruction waits. The event stream ends the wait after a fraction of a
            // millisecond at most.
            unsafe { asm!("wfe", options(nomem, nostack)) };
            return;
        };
        if let Some(deadline) = deadline_us {
            time::set_alarm(deadline);
        }
        // SAFETY: the core waits, and accesses nothing. The barrier lets earlier writes to devices
        // take effect.
        unsafe { asm!("dsb sy", "wfi", options(nostack)) };
        if deadline_us.is_some() {
            time::cancel_alarm();
        }
        controller.acknowledge();
    }

    /// Puts the calling core to sleep for good: nothing wakes the core any more.
    pub fn sleep_for_ever() -> ! {
        time::stop();
        if let Some(controller) = REGISTRY.controller() {
            controller.mute_core();
        }
        loop {
            // SAFETY: the core waits, and accesses nothing.
            unsafe { asm!("wfi", options(nomem, nostack)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::vec::Vec;

    use super::*;

    /// The core of an interrupt that was disabled.
    const IGNORED: usize = usize::MAX;

    /// Notes the requests; has no part for core 3.
    #[derive(Debug, Default)]
    struct Fake(Mutex<Vec<(Option<Interrupt>, usize)>>);

    impl InterruptController for Fake {
        fn init_core(&self, core: usize, mpidr: u64) -> Result<(), IrqError> {
            self.0.lock().unwrap().push((None, core));
            if core == 3 { Err(IrqError::NoRedistributor { mpidr }) } else { Ok(()) }
        }

        fn enable(&self, interrupt: Interrupt, core: usize) -> Result<(), IrqError> {
            self.0.lock().unwrap().push((Some(interrupt), core));
            Ok(())
        }

        fn disable(&self, interrupt: Interrupt) {
            self.0.lock().unwrap().push((Some(interrupt), IGNORED));
        }

        fn send_wake(&self, _: usize) {}

        fn acknowledge(&self) -> Option<u32> {
            None
        }

        fn mute_core(&self) {}
    }

    fn interrupt(intid: u32) -> Interrupt {
        Interrupt { intid, edge: false }
    }

    #[test]
    fn each_core_is_woken_by_its_private_interrupts_and_the_listener_by_a_source() {
        let (registry, source) = (Registry::new(), Source::new());
        registry.register_private(interrupt(27));
        registry.start(Fake::default(), 0, 0x80).unwrap();
        registry.register_private(interrupt(30));
        assert_eq!(registry.set_up_core(2, 0x82), Some(Ok(())));
        // The source has no registered interrupt.
        assert_eq!(registry.listen(&source, 2), Ok(false));
        source.register(interrupt(33));
        source.register(interrupt(34));
        assert_eq!(registry.listen(&source, 2), Ok(true));
        registry.ignore(&source);
        registry.ignore(&Source::new());
        let asked = registry.controller().unwrap().0.lock().unwrap().clone();
        let expected = [
            (None, 0),
            (Some(interrupt(27)), 0),
            (None, 2),
            (Some(interrupt(27)), 2),
            (Some(interrupt(30)), 2),
            (Some(interrupt(33)), 2),
            (Some(interrupt(33)), IGNORED),
        ];
        assert_eq!(asked, expected);
    }

    #[test]
    fn without_a_controller_the_cores_look_by_themselves() {
        let (registry, source) = (Registry::<Fake>::new(), Source::new());
        assert_eq!(registry.listen(&source, 0), Ok(true));
        registry.ignore(&source);
        assert_eq!(registry.set_up_core(1, 1), None);
        // A controller that does not work for the boot core is not kept.
        let refused = registry.start(Fake::default(), 3, 5);
        assert_eq!(refused, Err(IrqError::NoRedistributor { mpidr: 5 }));
        assert!(registry.controller().is_none());
    }
}
