//! How the delivery of a paid response ended.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::orphans::Handover;
use super::settings::PayShared;
use crate::payments::Undelivered;
use crate::protocol::engine::HostName;
use crate::proxy::downstream::client_io::ConnectionId;
use crate::proxy::handling::RequestName;
use crate::proxy::message::recorded::{BodyEnd, BodyRecord};

/// Reports how the delivery of a paid response ended, once the end of its body has been written: a crash before that leaves a
/// client without it, whose next request must not be paid for again.
#[derive(Debug)]
pub(super) struct DeliveryRecord {
    /// Absent for a payment on a channel.
    pub(super) undelivered: Option<Undelivered>,
    /// When the client left, if that was before the response came.
    pub(super) left: Option<(Handover, Instant)>,
    /// The client's connection, over HTTP/1.1.
    pub(super) writes_to: Option<ConnectionId>,
    /// Whether clients end the response when they like.
    pub(super) is_stream: bool,
    /// Whether it tells if the seller delivers.
    pub(super) tells: bool,
    pub(super) shared: Arc<PayShared>,
    /// The host that was paid.
    pub(super) host: HostName,
    pub(super) request: RequestName,
}

impl DeliveryRecord {
    /// The seller did not send the whole response.
    fn cut_off(&self) {
        tracing::warn!(request = %self.request, "the seller took a payment, and its response broke off");
        let payments = self.shared.settings.payments.as_ref().filter(|_| self.tells);
        if let (Some(payments), Ok(runtime)) = (payments, Handle::try_current()) {
            payments.undelivered_at_once(&self.host, &runtime);
        }
    }
}

impl BodyRecord for DeliveryRecord {
    fn saw(&mut self, _data: &Bytes) {
        // Somebody takes it.
        if let Some(undelivered) = &mut self.undelivered {
            undelivered.begin();
        }
    }

    fn ended(&mut self, bytes: u64, end: BodyEnd) {
        let unclaimed = self.left.as_ref().filter(|(handover, _)| !handover.is_done());
        let unclaimed_for = unclaimed.map(|(_, since)| since.elapsed());
        match end {
            BodyEnd::Failed => self.cut_off(),
            BodyEnd::Complete if self.tells && unclaimed_for.is_none() => {
                if let Some(payments) = &self.shared.settings.payments {
                    payments.delivered(&self.host);
                }
            }
            BodyEnd::Complete | BodyEnd::Dropped => {}
        }
        let Some(mut undelivered) = self.undelivered.take() else { return };
        match (end, unclaimed_for) {
            (BodyEnd::Failed, _) => return undelivered.cut_off(),
            (_, Some(ago)) => return undelivered.left(ago),
            (BodyEnd::Dropped, None) if self.is_stream && bytes > 0 => return undelivered.end(),
            (BodyEnd::Dropped, None) => return undelivered.left(Duration::ZERO),
            (BodyEnd::Complete, None) => undelivered.begin(),
        }
        match &self.writes_to {
            Some(connection) if self.left.is_none() => {
                // Unless the connection ends before the last bytes are written.
                undelivered.left(Duration::ZERO);
                connection.once_written(Box::new(move || undelivered.end()));
            }
            // Over HTTP/2, or to a client that continues the request of another. The connection's task, which has the last
            // bytes, comes first.
            _ => {
                if let Ok(runtime) = Handle::try_current() {
                    runtime.spawn(async move { undelivered.end() });
                }
            }
        }
    }
}

/// Whether a response is a stream of events, which clients end when they like.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let media_type = value.split(|byte| *byte == b';').next().unwrap_or_default();
    media_type.trim_ascii().eq_ignore_ascii_case(b"text/event-stream")
}
