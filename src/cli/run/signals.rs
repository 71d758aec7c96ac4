//! Signals that `tollpass run` receives while a command runs. Signals of the terminal reach the command directly; those
//! sent to this process only must be passed on.

use std::io;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::signal;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::{Cause, Origin};
use tokio::sync::mpsc;

use crate::shutdown::is_ignored;

/// The signals to handle.
const PASSED_ON: [i32; 7] = [
    signal::SIGHUP,
    signal::SIGINT,
    signal::SIGQUIT,
    signal::SIGTERM,
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGWINCH,
];
/// Signals whose default action ends a process without a core file.
const DEADLY: [i32; 8] = [
    signal::SIGHUP,
    signal::SIGINT,
    signal::SIGKILL,
    signal::SIGPIPE,
    signal::SIGALRM,
    signal::SIGTERM,
    signal::SIGUSR1,
    signal::SIGUSR2,
];
/// How many signals may be queued.
const QUEUE_LENGTH: usize = 64;

/// Handles signals until dropped; afterwards the signals are ignored.
pub(super) struct SignalListener {
    handle: Handle,
    received: mpsc::Receiver<ReceivedSignal>,
}

/// A received signal.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedSignal {
    number: i32,
    /// The kernel sent it for the terminal, to the whole process group including the command.
    is_for_the_group: bool,
}

impl SignalListener {
    /// Handles the signals that can be passed on, except those ignored at startup, which the command must ignore too,
    /// as under `nohup`.
    pub(super) fn listen() -> io::Result<Self> {
        let wanted = PASSED_ON.into_iter().filter(|number| !is_ignored(*number));
        let mut signals = SignalsInfo::<WithOrigin>::new(wanted)?;
        let handle = signals.handle();
        let (sender, received) = mpsc::channel(QUEUE_LENGTH);
        let listening = move || {
            for origin in signals.forever() {
                if sender.blocking_send(ReceivedSignal::from(origin)).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("signals".to_owned()).spawn(listening)?;
        Ok(Self { handle, received })
    }

    /// The next signal.
    pub(super) async fn next(&mut self) -> ReceivedSignal {
        match self.received.recv().await {
            Some(received) => received,
            None => std::future::pending().await,
        }
    }

    /// Discards the signals received so far.
    pub(super) fn forget(&mut self) {
        while self.received.try_recv().is_ok() {}
    }

    /// Waits for a signal that means to stop.
    pub(super) async fn stop(&mut self) {
        while matches!(self.next().await.number, signal::SIGUSR1 | signal::SIGUSR2 | signal::SIGWINCH) {}
    }
}

impl Drop for SignalListener {
    fn drop(&mut self) {
        self.handle.close();
    }
}

impl From<Origin> for ReceivedSignal {
    fn from(origin: Origin) -> Self {
        Self { number: origin.signal, is_for_the_group: origin.cause == Cause::Kernel }
    }
}

impl ReceivedSignal {
    /// Passes the signal on to process `id`, unless that received it too.
    pub(super) fn pass_on(self, id: u32) {
        if self.is_for_the_group {
            return;
        }
        let process = i32::try_from(id).ok().and_then(Pid::from_raw);
        if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(self.number))
            && let Err(error) = kill_process(process, signal)
        {
            tracing::debug!(%error, signal = self.number, "passing on a signal failed");
        }
    }
}

/// Ends this process with the signal that ended the command. For other signals, returns 128 plus the number, like a
/// shell; in particular, a second core file would be useless.
pub(super) fn die_by(number: i32) -> u8 {
    if DEADLY.contains(&number) {
        // Returns only on failure; then the exit code shows the signal.
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(128))
}
