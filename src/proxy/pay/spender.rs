//! Whether the program that made a request may spend: it has the token of a client or a route, or belongs to the user who
//! runs tollpass.

use std::sync::Arc;

use http::Extensions;

use crate::protocol::Refusal;
use crate::protocol::policy::LocalSpenders;
use crate::proxy::client_connection::ClientConnection;
use crate::proxy::extensions::{Arrival, BehindRouteToken, RequestClient};

/// The program that made a request.
#[derive(Debug)]
pub(super) enum Spender {
    /// It may spend.
    Admitted,
    /// It may spend if the user with this ID opened the connection.
    Unproven { own: u32, connection: Option<Arc<ClientConnection>> },
}

impl Spender {
    /// The program that made the request with these extensions.
    pub(super) fn of(request: &Extensions, local: LocalSpenders) -> Self {
        let LocalSpenders::User(own) = local else { return Self::Admitted };
        if request.get::<RequestClient>().is_some() || request.get::<BehindRouteToken>().is_some() {
            return Self::Admitted;
        }
        let connection = request.get::<Arrival>().map(|arrival| Arc::clone(&arrival.connection));
        Self::Unproven { own, connection }
    }

    /// Checks that it may spend. Looks up the owner of its connection before the first payment on it.
    ///
    /// # Errors
    /// It belongs to another user, or to an unknown one.
    pub(super) async fn check(&self) -> Result<(), Refusal> {
        let Self::Unproven { own, connection } = self else { return Ok(()) };
        let own = *own;
        let unknown = |reason: String| Refusal::UnknownUser { own, reason: reason.into() };
        let Some(connection) = connection else {
            return Err(unknown("its connection is not known".to_owned()));
        };
        match connection.owner().await {
            Ok(owner) if owner == own => Ok(()),
            Ok(owner) => Err(Refusal::OtherUser { owner, own }),
            Err(error) => Err(unknown(error.to_string())),
        }
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::protocol::policy::{ClientKind, ProvenClient, ProxyClient};
    use crate::proxy::extensions::TokenPlace;

    const OTHER: u32 = 54_321;

    fn on(client: SocketAddr, server: Option<SocketAddr>) -> Extensions {
        let connection = Arc::new(ClientConnection::new(client, server));
        let mut extensions = Extensions::new();
        extensions.insert(Arrival { connection, request: 1 });
        extensions
    }

    #[tokio::test]
    async fn without_a_token_only_an_open_connection_of_the_user_may_spend() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        let here = server.local_addr().ok();
        let own = rustix::process::geteuid().as_raw();
        let remote: SocketAddr = "192.0.2.1:1".parse().unwrap();
        let mut with_client = on(remote, here);
        let client_entry =
            ProxyClient { name: "a".to_owned(), kind: ClientKind::Any, rules: None, budgets: Vec::new() };
        let proven = ProvenClient { client: client_entry.into(), digest: [1; 32] };
        with_client.insert(RequestClient { proven, version: 0, shown_in: TokenPlace::Path });
        let mut with_route = on(remote, here);
        with_route.insert(BehindRouteToken);
        for (request, local, expected) in [
            (on(peer, here), LocalSpenders::User(own), Ok(())),
            (on(peer, here), LocalSpenders::User(OTHER), Err("belongs to the user ")),
            (on(peer, None), LocalSpenders::User(own), Err("its connection is closed")),
            (on(remote, here), LocalSpenders::User(own), Err("or comes from another machine")),
            (Extensions::new(), LocalSpenders::User(own), Err("its connection is not known")),
            (Extensions::new(), LocalSpenders::Any, Ok(())),
            (on(remote, here), LocalSpenders::Any, Ok(())),
            (with_client, LocalSpenders::User(own), Ok(())),
            (with_route, LocalSpenders::User(own), Ok(())),
        ] {
            let found = Spender::of(&request, local).check().await;
            match expected {
                Ok(()) => assert_eq!(found, Ok(())),
                Err(part) => {
                    let told = found.unwrap_err().to_string();
                    assert!(told.contains(part) && told.contains("set local = \"any\""), "{told}");
                }
            }
        }
        let request = on(peer, here);
        drop(client);
        let told = Spender::of(&request, LocalSpenders::User(own)).check().await.unwrap_err();
        assert!(matches!(told, Refusal::UnknownUser { .. }), "{told}");
    }
}
