//! What a seller offers for a request, and what the rules would do, without paying.

use std::net::IpAddr;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Uri, header};
use serde::Serialize;
use tokio::time::timeout;
use tower::ServiceExt as _;

use super::held_answer::not_held;
use super::plain_http;
use crate::hosts::without_brackets;
use crate::limits::Limits;
use crate::protocol::engine::host_name;
use crate::protocol::policy::{
    Allow, Deposit, KnownAsset, Policy, PriceLimit, Requested, SpendLimit, shown_price,
};
use crate::protocol::schemes;
use crate::protocol::{Address, Amount, Answer, AssetId, Offer, ReasonCode, Refusal, Terms};
use crate::proxy::message::target;
use crate::proxy::replay::{Held, hold};
use crate::proxy::request_service::RequestService;
use crate::proxy::upstream::egress::PinnedAddr;
use crate::proxy::{Body, ForwardError};

/// The configuration that decides about a request.
#[derive(Clone, Copy, Debug)]
pub struct InspectSettings<'a> {
    /// The rules.
    pub policy: &'a Policy,
    /// The tokens whose symbols are known.
    pub assets: &'a [KnownAsset],
    /// The limits on responses.
    pub limits: &'a Limits,
    /// Whether there is a wallet.
    pub has_wallet: bool,
    /// Its address, if the configuration has that.
    pub address: Option<Address>,
    /// Whether the journal has it that nothing is signed.
    pub is_frozen: bool,
    /// The channel contract, if there is a chain.
    pub contract: Option<Address>,
}

/// What a seller offers, and what the proxy would do.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The method of the request.
    pub method: String,
    /// The URL of the request.
    pub url: String,
    /// The status of the response.
    pub status: u16,
    /// Why the whole response would not be paid, if that does not depend on an offer; for programs.
    pub reason: Option<ReasonCode>,
    /// The same for people; also if the response asks for no payment.
    pub details: Option<String>,
    /// The offers of the seller, in the order in which they are tried if the rule prefers none.
    pub offers: Vec<InspectedOffer>,
    /// The place of the offer that would be paid, counted from 0, if one would be.
    pub chosen: Option<usize>,
    /// Its offers that tollpass cannot pay, and why.
    pub unsupported: Vec<String>,
    /// How the proxy would sign in, if the seller has no offers and wants only to know who is there.
    pub sign_in: Option<InspectedSignIn>,
}

/// How the proxy would sign in.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedSignIn {
    /// The network.
    pub network: String,
    /// The address that it would show to the seller; unknown if only the key tells it.
    pub address: Option<Address>,
}

/// One offer, and what the proxy would do with it.
#[derive(Clone, Debug, Serialize)]
pub struct InspectedOffer {
    /// The payment scheme.
    pub scheme: String,
    /// The price with its symbol, or in base units if the asset is unknown.
    pub shown: String,
    /// The price in base units.
    pub price: Amount,
    /// The asset.
    pub asset: String,
    /// The payee.
    pub payee: Address,
    /// What the proxy would do.
    pub would: Preview,
    /// Why it would not pay, for programs.
    pub reason: Option<ReasonCode>,
    /// Why, or on which condition, for people.
    pub details: Option<String>,
}

/// What the proxy would do with an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Preview {
    /// Pay it.
    Pay,
    /// Ask an approver first.
    Ask,
    /// Not pay it.
    Refuse,
}

/// Sends a request without a payment, and reports the offers in its response.
///
/// # Errors
/// The origin cannot be reached, or does not respond within `limits.answer_timeout`.
pub async fn inspect<S>(
    service: S,
    method: Method,
    url: &Uri,
    settings: InspectSettings<'_>,
) -> Result<Inspection, ForwardError>
where
    S: RequestService<ForwardError>,
{
    let mut request = Request::new(Body::Empty);
    (*request.method_mut(), *request.uri_mut()) = (method.clone(), url.clone());
    request.headers_mut().insert(header::ACCEPT, header::HeaderValue::from_static("*/*"));
    let within: Duration = settings.limits.answer_timeout;
    let late = |_| ForwardError::Lost("no response within limits.answer_timeout".to_owned());
    let (head, body) = timeout(within, service.oneshot(request)).await.map_err(late)??.into_parts();
    let mut inspection = Inspection {
        method: method.to_string(),
        url: url.to_string(),
        status: head.status.as_u16(),
        reason: None,
        details: None,
        offers: Vec::new(),
        chosen: None,
        unsupported: Vec::new(),
        sign_in: None,
    };
    if !schemes::may_ask(head.status, &head.headers) {
        inspection.details = Some("the response asks for no payment".to_owned());
        return Ok(inspection);
    }
    let limits = settings.limits;
    let is_wanted = schemes::wants_body(head.status, &head.headers);
    let body = match hold(body, limits.max_402_body, limits.offer_timeout).await {
        // Another body is not read for a payment, either.
        Held::Whole { bytes, .. } => Some(bytes).filter(|_| is_wanted),
        Held::Past(_, why) => {
            inspection.is_refused(&not_held(why, limits));
            None
        }
    };
    let answer = Answer { status: head.status, headers: &head.headers, body: body.as_deref() };
    inspection.unsupported = schemes::unsupported(&answer);
    let peer = head.extensions.get::<PinnedAddr>().map(|peer| peer.0.ip());
    match schemes::read(&answer) {
        Ok(offers) => {
            let judge = |offer: &Offer| settings.judge(url, peer, offer);
            inspection.offers = offers.iter().map(|offer| settings.describe(offer, judge(offer))).collect();
            inspection.chosen = settings.choose(url, &offers, &inspection.offers);
        }
        Err(Refusal::UnsupportedOffers { offers })
            if offers.is_empty()
                && let Some(sign_in) = settings.sign_in(&head.headers, url, peer) =>
        {
            // A body that could not be held has no part in it.
            (inspection.reason, inspection.details) = (None, None);
            inspection.sign_in = Some(sign_in);
        }
        Err(refusal) if inspection.reason.is_none() => inspection.is_refused(&refusal),
        Err(_) => {}
    }
    Ok(inspection)
}

impl Inspection {
    fn is_refused(&mut self, refusal: &Refusal) {
        (self.reason, self.details) = (Some(refusal.reason()), Some(refusal.to_string()));
    }
}

impl InspectSettings<'_> {
    /// What the rule permits for a seller at `peer`.
    ///
    /// # Errors
    /// It is not paid, whatever it offers.
    fn limit(&self, url: &Uri, peer: Option<IpAddr>) -> Result<SpendLimit, Refusal> {
        let (host, port) = target::host_and_port(url);
        let host = without_brackets(host);
        let shown = || url.authority().map(ToString::to_string).unwrap_or_default();
        let (max_price, receivers, preference, allow_plain_http, hooks, budgets) = match self
            .policy
            .rule(host, port)
            .map(|rule| &rule.allow)
        {
            None => return Err(Refusal::NoRule { host: shown() }),
            Some(Allow::Deny) => return Err(Refusal::Denied { host: shown() }),
            Some(Allow::Pay {
                max_price, receivers, preference, allow_plain_http, hooks, budgets, ..
            }) => (max_price, receivers, preference, *allow_plain_http, hooks, budgets),
        };
        if !self.has_wallet {
            return Err(Refusal::NoWallet);
        }
        if self.is_frozen {
            return Err(Refusal::Frozen);
        }
        if plain_http::is_limited(url, allow_plain_http) {
            plain_http::check(url, peer)?;
        }
        Ok(SpendLimit {
            host: host_name(host),
            max_price: max_price.clone(),
            receivers: receivers.clone(),
            preference: preference.clone(),
            hooks: hooks.clone(),
            budgets: self.policy.budgets(host, budgets, &[]),
            origin: Default::default(),
        })
    }

    /// How the proxy would sign in to a seller whose 402 has no offers; `None` if it would not.
    fn sign_in(&self, headers: &HeaderMap, url: &Uri, peer: Option<IpAddr>) -> Option<InspectedSignIn> {
        let limit = self.limit(url, peer).ok()?;
        if limit.hooks.payment_requested.action == Requested::Abort {
            return None;
        }
        let challenge = schemes::sign_in_alone(headers, url, &limit)?;
        Some(InspectedSignIn { network: challenge.network().to_owned(), address: self.address })
    }

    /// What the proxy would do, and why or on which condition.
    fn judge(
        &self,
        url: &Uri,
        peer: Option<IpAddr>,
        offer: &Offer,
    ) -> Result<(Preview, Option<String>), Refusal> {
        let limit = self.limit(url, peer)?;
        let (max_price, hooks) = (&limit.max_price, &limit.hooks);
        let terms = offer.terms();
        limit.check(&terms, || None)?;
        offer.check_token(limit.max_price.known(&terms.price.asset))?;
        if !offer.is_one_shot() {
            let ours = self.contract.ok_or(Refusal::NoChain)?;
            offer.check_contract(ours)?;
            let Deposit { max_per_channel: cap, .. } = self.policy.deposit;
            if terms.price.amount > cap {
                return Err(Refusal::DepositCap { price: terms.price.amount, cap });
            }
        }
        for counted in limit.budgets.iter() {
            counted.budget.check_alone(&terms.price)?;
        }
        let is_open = terms.price.asset == AssetId::ChannelToken
            && !matches!(limit.max_price, PriceLimit::ChannelToken(_));
        let condition = is_open.then(|| {
            format!(
                "if max_price ({max_price}) allows the channel contract's token, which only the node knows"
            )
        });
        let condition = condition.or_else(|| offer.condition());
        let is_asked = match (&hooks.ask_above, hooks.payment_requested.action) {
            (_, Requested::Abort) => return Err(Refusal::NotWanted),
            (None, action) => action == Requested::Ask,
            (Some(above), _) => above.is_exceeded(&terms.price, None),
        };
        if !is_asked {
            return Ok((Preview::Pay, condition));
        }
        let approver = match &hooks.payment_requested.webhook {
            Some(webhook) => format!("the webhook {webhook} decides"),
            None => "waits for `tollpass approve`, unless it is approved in advance".to_owned(),
        };
        Ok((
            Preview::Ask,
            Some([Some(approver), condition].into_iter().flatten().collect::<Vec<_>>().join("; ")),
        ))
    }

    /// The offer that would be paid: of those that are not refused, the one that the rule prefers.
    fn choose(&self, url: &Uri, offers: &[Offer], judged: &[InspectedOffer]) -> Option<usize> {
        let (host, port) = target::host_and_port(url);
        let Some(Allow::Pay { max_price, preference, .. }) =
            self.policy.rule(without_brackets(host), port).map(|rule| &rule.allow)
        else {
            return None;
        };
        let terms: Vec<Terms> = offers.iter().map(Offer::terms).collect();
        let keys = preference.keys(max_price, &terms, None);
        let payable = (0..offers.len()).filter(|index| judged[*index].would != Preview::Refuse);
        payable.min_by_key(|index| &keys[*index])
    }

    fn describe(&self, offer: &Offer, judged: Result<(Preview, Option<String>), Refusal>) -> InspectedOffer {
        let terms = offer.terms();
        let (would, reason, details) = match judged {
            Ok((would, condition)) => (would, None, condition),
            Err(refusal) => (Preview::Refuse, Some(refusal.reason()), Some(refusal.to_string())),
        };
        InspectedOffer {
            scheme: terms.scheme.to_string(),
            shown: shown_price(&terms.price, self.assets),
            price: terms.price.amount,
            asset: terms.price.asset.to_string(),
            payee: terms.payee,
            would,
            reason,
            details,
        }
    }
}
