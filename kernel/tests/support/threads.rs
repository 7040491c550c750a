//! Threads of the host.

use kernel::llm::workers::Workers;

/// So many, started anew for each job.
pub struct Threads(pub usize);

impl Workers for Threads {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, job: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for i in 1..self.0 {
                scope.spawn(move || job(i));
            }
            job(0);
        });
    }
}
