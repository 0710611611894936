//! Support code of both benchmarks.

use std::{sync::Arc, thread};

use smol::Executor;

/// Runs a measurement with one executor thread per core.
pub(crate) fn on_all_cores<T>(measure: impl AsyncFnOnce(Arc<Executor<'static>>) -> T) -> T {
    let executor = Arc::new(Executor::new());
    let threads = thread::available_parallelism().map_or(2, usize::from);
    let (stop, stopped) = async_channel::bounded::<()>(1);
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (executor, stopped) = (executor.clone(), stopped.clone());
            thread::spawn(move || smol::block_on(executor.run(stopped.recv())))
        })
        .collect();
    let measured = smol::block_on(measure(executor));
    drop(stop);
    for worker in workers {
        // The thread ends because the channel is closed.
        let _closed = worker.join();
    }
    measured
}
