//! The signals that `tollpass run` gets while a program runs, and where they came from: what the terminal sends reaches
//! the program by itself, what somebody sends to us alone must be passed on.

use std::io;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::signal;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::{Cause, Origin};
use tokio::sync::mpsc;

use crate::shutdown::is_ignored;

/// What is listened for.
const PASSED_ON: [i32; 7] = [
    signal::SIGHUP,
    signal::SIGINT,
    signal::SIGQUIT,
    signal::SIGTERM,
    signal::SIGUSR1,
    signal::SIGUSR2,
    signal::SIGWINCH,
];
/// Signals that end a process without a core file.
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
/// How many signals may wait to be looked at.
const WAITING: usize = 64;

/// Listens until it is dropped; the signals stay harmless to us after that.
pub(super) struct SignalListener {
    handle: Handle,
    received: mpsc::Receiver<ReceivedSignal>,
}

/// A signal that has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceivedSignal {
    number: i32,
    /// The terminal, or its end, sent it: to the whole group of processes, the program among them.
    is_for_the_group: bool,
}

impl SignalListener {
    /// Listens for what can be passed on, but for what was ignored when we were started: that is for the program to
    /// ignore too, as `nohup` wants it.
    pub(super) fn listen() -> io::Result<Self> {
        let wanted = PASSED_ON.into_iter().filter(|number| !is_ignored(*number));
        let mut signals = SignalsInfo::<WithOrigin>::new(wanted)?;
        let handle = signals.handle();
        let (sender, received) = mpsc::channel(WAITING);
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

    /// Forgets what has come so far.
    pub(super) fn forget(&mut self) {
        while self.received.try_recv().is_ok() {}
    }

    /// Waits for a signal that means the end.
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
    /// Passes it on to the process `id`, unless that got it too.
    pub(super) fn pass_on(self, id: u32) {
        if self.is_for_the_group {
            return;
        }
        let process = i32::try_from(id).ok().and_then(Pid::from_raw);
        if let (Some(process), Some(signal)) = (process, Signal::from_named_raw(self.number))
            && let Err(error) = kill_process(process, signal)
        {
            tracing::debug!(%error, signal = self.number, "a signal could not be passed on");
        }
    }
}

/// Ends this process as a signal ended another one. Returns the exit code where that is no way to end: a shell would
/// say 128 and the signal's number, and nobody wants two core files.
pub(super) fn die_by(number: i32) -> u8 {
    if DEADLY.contains(&number) {
        // Does not return where it worked; else the exit code says it.
        let _ = signal_hook::low_level::emulate_default_handler(number);
    }
    u8::try_from(number).map_or(u8::MAX, |number| number.saturating_add(128))
}
