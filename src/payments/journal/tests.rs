use std::path::Path;
use std::sync::Arc;

use ethers_core::types::U256;
use ethers_core::types::transaction::eip2718::TypedTransaction;
use rusqlite::{Connection, params};

use super::schema::{HASHED, MIGRATIONS, SCHEMA};
use super::{FILE, Journal, JournalError, LedgerReader};
use crate::chain::signer::Signer;
use crate::payments::clock::unix_time;
use crate::payments::closing_signatures::ClosingSignature;
use crate::payments::ledger::{LedgerKey, LedgerRow, LedgerState, OnChainUse, RowSeal, SignedAmount};
use crate::payments::paid_prices::PaidPrice;
use crate::payments::pauses::PausedHost;
use crate::payments::standing::StandingApproval;
use crate::protocol::budget::{BudgetAmount, BudgetKey, BudgetRow, Window};
use crate::protocol::channel::InDoubt;
use crate::protocol::engine::Record;
use crate::protocol::quote::RequestId;
use crate::protocol::refusal::PauseReason;
use crate::protocol::{Account, Address, Amount, Channel, ChannelId, ChannelOp, Intent, Phase, Signature};

fn account(payer: u8) -> Account {
    let address = |byte| Address([byte; 20]);
    Account { chain_id: 1337, contract: address(0xcc), token: address(0x70), payer: address(payer) }
}

fn channel(phase: Phase) -> Channel {
    Channel {
        deposit: Amount::MAX,
        promised: 30.into(),
        durable_limit: 90.into(),
        acknowledged: 20.into(),
        presented: 25.into(),
        funded: Amount::MAX,
        doubt: Some(95.into()),
        must_query: true,
        signed: Amount::ZERO,
        payments: 0,
        in_doubt: Some(InDoubt { total: 30.into(), price: 10.into() }),
        phase,
    }
}

#[test]
fn what_was_written_is_there_after_reopening_and_belongs_to_its_payer() {
    let directory = tempfile::tempdir().unwrap();
    let id = |open_block| ChannelId { receiver: Address([0xbb; 20]), open_block };
    let op = ChannelOp::Open { receiver: Address([0xbb; 20]), deposit: 100.into() };
    let intent =
        |nonce| Intent { op, moves: true, nonce, hash: [nonce as u8; 32], raw: vec![1, 2, 3], host: None };
    let channels = vec![
        (id(1), channel(Phase::Open)),
        (id(2), channel(Phase::Closing { settle_block: u32::MAX })),
        (id(3), Channel { in_doubt: None, ..channel(Phase::Gone) }),
    ];

    let mut journal = Journal::open(directory.path()).unwrap();
    let account_id = Some(journal.load(&account(0xaa)).unwrap().id);
    let mut records: Vec<Record> =
        channels.iter().map(|(id, channel)| Record::Channel(*id, *channel)).collect();
    records.extend([Record::Intent(intent(11)), Record::Intent(intent(9)), Record::Cursor(77)]);
    journal.write(account_id, &records).unwrap();
    drop(journal);

    let mut journal = Journal::open(directory.path()).unwrap();
    let contents = journal.load(&account(0xaa)).unwrap();
    assert_eq!(contents.channels, channels);
    assert_eq!(contents.intents, [intent(9), intent(11)]);
    assert_eq!(contents.cursor, 77);
    assert!(journal.load(&account(0xab)).unwrap().channels.is_empty());
    let closing = ClosingSignature { total: 30.into(), signature: Signature([7; 65]) };
    for id in [id(1), id(2)] {
        journal.write(account_id, &[Record::Consent(id, closing.total, closing.signature)]).unwrap();
    }
    // A channel that has ended needs no closing signature.
    journal.write(account_id, &[Record::Channel(id(2), channel(Phase::Gone))]).unwrap();
    assert_eq!(journal.load(&account(0xaa)).unwrap().closing_signatures, [(id(1), closing)]);
    journal.write(account_id, &[Record::Channel(id(2), channels[1].1)]).unwrap();
    journal.write(account_id, &[Record::IntentsResolved(Address([0xbb; 20]))]).unwrap();
    assert!(journal.load(&account(0xaa)).unwrap().intents.is_empty());
    let all = journal.accounts().unwrap();
    assert_eq!(all.len(), 2);
    let without_host = |(id, channel)| (id, channel, None);
    assert_eq!(all[0].channels, channels.into_iter().map(without_host).collect::<Vec<_>>());
}

#[test]
fn the_fee_of_a_transaction_counts_once_though_it_is_recorded_before_and_after_a_signer_signed_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    let id = Some(journal.load(&account(0xaa)).unwrap().id);
    let asked = r#"{"type":"0x2","from":"0x0101010101010101010101010101010101010101","nonce":"0x3","gas":"0x5208","value":"0x0",
        "to":"0x0202020202020202020202020202020202020202","data":"0x","maxFeePerGas":"0x64","maxPriorityFeePerGas":"0x1",
        "accessList":[],"chainId":"0x539"}"#;
    let transaction: TypedTransaction = serde_json::from_str(asked).unwrap();
    let raw = Signer::new(&[7; 32]).unwrap().sign_transaction(&transaction).unwrap();
    let op = ChannelOp::Open { receiver: Address([0xbb; 20]), deposit: 100.into() };
    let intent = |hash, raw| Intent { op, moves: true, nonce: 3, hash: [hash; 32], raw, host: None };
    let (asked, signed) = (intent(1, asked.as_bytes().to_vec()), intent(2, raw.to_vec()));
    for record in [asked.clone(), asked, signed] {
        journal.write(id, &[Record::Intent(record)]).unwrap();
        let fees: Vec<U256> =
            journal.load(&account(0xaa)).unwrap().fees.into_iter().map(|(_, fee)| fee).collect();
        assert_eq!(fees, [U256::from(21_000 * 100)]);
    }
    assert_eq!(journal.load(&account(0xaa)).unwrap().intents.len(), 2);
}

#[test]
fn before_the_account_is_known_only_its_own_records_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    let forgotten = Record::Price(RequestId([1; 32]), None);
    journal.write(None, &[Record::AuthorizationEnded([2; 32]), forgotten]).unwrap();
    let error = journal.write(None, &[Record::Cursor(7)]).unwrap_err();
    assert!(matches!(error, JournalError::NoAccount), "{error}");
}

#[test]
fn another_chain_or_token_than_on_record_is_refused_unless_the_chain_is_chosen() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    let known = account(0xaa);
    journal.verify(&known, false).unwrap();
    journal.load(&known).unwrap();
    journal.verify(&known, false).unwrap();
    journal.verify(&account(0xab), false).unwrap();
    let elsewhere = Account { chain_id: 1, ..known };
    let error = journal.verify(&elsewhere, false).unwrap_err();
    assert!(matches!(error, JournalError::OtherChain { found: 1, known: 1337, .. }), "{error}");
    assert!(error.to_string().contains("set chain.chain_id = 1 if"), "{error}");
    journal.verify(&elsewhere, true).unwrap();
    journal.load(&elsewhere).unwrap();
    journal.verify(&elsewhere, false).unwrap();
    journal.verify(&known, false).unwrap();
    let token = Address([0x71; 20]);
    for is_chosen in [false, true] {
        let error = journal.verify(&Account { token, ..known }, is_chosen).unwrap_err();
        assert!(matches!(error, JournalError::OtherToken { found, .. } if found == token), "{error}");
    }
    journal.verify(&Account { token, ..elsewhere }, true).unwrap_err();
}

#[test]
fn standing_approvals_are_there_after_reopening_and_their_ids_are_not_reused() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(FILE)).unwrap();
    let earlier = MIGRATIONS[..6].concat();
    old.execute_batch(&format!(
        "{earlier} PRAGMA user_version = 6; INSERT INTO request_key (id, key) VALUES (1, zeroblob(32));"
    ))
    .unwrap();
    drop(old);
    let given = |host: &str, max_price: u64| StandingApproval {
        id: 0,
        host: host.to_owned(),
        payee: Address([7; 20]),
        network: "eip155:1".to_owned(),
        token: "0x01".to_owned(),
        max_price: max_price.into(),
        since: 5,
        until: 100,
    };
    let mut journal = Journal::open(directory.path()).unwrap();
    assert_eq!(journal.add_approval(&given("a", 1), 5).unwrap(), 1);
    assert_eq!(journal.add_approval(&given("b", 2), 5).unwrap(), 2);
    // In place of the first one.
    assert_eq!(journal.add_approval(&given("a", 3), 5).unwrap(), 3);
    drop(journal);
    let mut journal = Journal::open(directory.path()).unwrap();
    let with_id = |id, approval| StandingApproval { id, ..approval };
    assert_eq!(journal.standing_approvals().unwrap(), [with_id(2, given("b", 2)), with_id(3, given("a", 3))]);
    assert!(journal.revoke_approval(3).unwrap() && !journal.revoke_approval(3).unwrap());
    // The earlier one lasts longer.
    let short = StandingApproval { until: 99, ..given("b", 20) };
    assert_eq!(journal.add_approval(&short, 5).unwrap(), 4);
    assert_eq!(journal.standing_approvals().unwrap(), [with_id(2, given("b", 2)), with_id(4, short)]);
    // At 100, the others have ended.
    assert_eq!(journal.add_approval(&given("c", 4), 100).unwrap(), 5);
    assert_eq!(journal.standing_approvals().unwrap(), [with_id(5, given("c", 4))]);
}

#[test]
fn a_file_of_the_first_version_is_brought_up_to_date() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(FILE)).unwrap();
    old.execute_batch(&format!("{SCHEMA} PRAGMA user_version = 1;")).unwrap();
    drop(old);
    let mut journal = Journal::open(directory.path()).unwrap();
    let account_id = Some(journal.load(&account(0xaa)).unwrap().id);
    let id = ChannelId { receiver: Address([0xbb; 20]), open_block: 1 };
    journal.write(account_id, &[Record::Consent(id, 5.into(), Signature([7; 65]))]).unwrap();
    drop(journal);
    assert_eq!(
        Journal::open(directory.path()).unwrap().load(&account(0xaa)).unwrap().closing_signatures.len(),
        1
    );
}

/// The bytes of all files of a directory.
fn bytes_of(directory: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().path());
    files.flat_map(|path| std::fs::read(path).unwrap()).collect()
}

fn holds(directory: &Path, text: &str) -> bool {
    bytes_of(directory).windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn urls_of_an_older_file_are_hashed_and_leave_no_trace() {
    for version in 1..HASHED {
        let directory = tempfile::tempdir().unwrap();
        let request =
            |number: usize, size| format!("GET https://a.example/x?hunter2={number}{}", "y".repeat(size));
        let old = Connection::open(directory.path().join(FILE)).unwrap();
        old.pragma_update(None, "journal_mode", "WAL").unwrap();
        let steps: String = MIGRATIONS[..version as usize].concat();
        old.execute_batch(&format!("{steps} PRAGMA user_version = {version};")).unwrap();
        let Account { chain_id, contract, payer, .. } = account(0xaa);
        old.execute(
            "INSERT INTO book (id, chain_id, contract, payer) VALUES (1, ?1, ?2, ?3)",
            params![chain_id as i64, contract.to_string(), payer.to_string()],
        )
        .unwrap();
        for (number, size) in [0, 10, 60_000, 5_000].into_iter().enumerate() {
            let row = params![request(number, size), Address([0xbb; 20]).to_string(), unix_time() as i64];
            old.execute("INSERT INTO price VALUES (1, ?1, '5', ?2, ?3)", row).unwrap();
        }
        // Deleted rows are still in free pages.
        old.execute("DELETE FROM price WHERE request = ?1", [request(3, 5_000)]).unwrap();
        assert!(holds(directory.path(), "hunter2=3"));
        drop(old);

        let mut journal = Journal::open(directory.path()).unwrap();
        assert!(!holds(directory.path(), "hunter2"), "version {version}, while it is open");
        let mut prices = journal.load(&account(0xaa)).unwrap().prices;
        let mut expected: Vec<RequestId> = [(0, 0), (1, 10), (2, 60_000)]
            .map(|(number, size)| journal.request_hasher().id(&request(number, size)))
            .into();
        expected.sort_unstable();
        prices.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(prices.iter().map(|(id, _)| *id).collect::<Vec<_>>(), expected);
        assert_eq!(prices[0].1.offer.terms().price, 5.into());
        drop(journal);
        assert!(!holds(directory.path(), "hunter2"), "version {version}");
        let journal = Journal::open(directory.path()).unwrap();
        assert!(expected.contains(&journal.request_hasher().id(&request(1, 10))), "the key stays the same");
        assert!(!format!("{journal:?}").contains("Hmac"));
    }
}

#[test]
fn a_sweep_that_was_cut_off_is_done_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    journal.connection.pragma_update(None, "secure_delete", "OFF").unwrap();
    journal
        .connection
        .execute_batch(
            "UPDATE request_key SET is_swept = 0; CREATE TABLE t (x); INSERT INTO t VALUES ('hunter2'); DROP TABLE t;",
        )
        .unwrap();
    drop(journal);
    assert!(holds(directory.path(), "hunter2"));
    let journal = Journal::open(directory.path()).unwrap();
    assert!(!holds(directory.path(), "hunter2"));
    let swept =
        journal.connection.query_row("SELECT is_swept FROM request_key", [], |row| row.get::<_, bool>(0));
    assert!(swept.unwrap());
}

#[test]
fn another_journal_knows_the_same_request_by_another_hash() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id =
        |directory: &Path| Journal::open(directory).unwrap().request_hasher().id("GET http://a.example/");
    assert_eq!(id(one.path()), id(one.path()));
    assert_ne!(id(one.path()), id(other.path()));
}

/// Before version 20, a calendar month was counted in whole hours.
#[test]
fn what_was_spent_within_an_hour_counts_in_its_last_quarter() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(FILE)).unwrap();
    let earlier = MIGRATIONS[..19].concat();
    old.execute_batch(&format!(
        "{earlier} PRAGMA user_version = 19; INSERT INTO request_key (id, key) VALUES (1, zeroblob(32));
         INSERT INTO budget VALUES ('a', 'tokens', '', 'per_hour', 600, '5', 0), ('a', 'tokens', '', 'per_calendar_week', 600, '5', 0),
             ('a', 'tokens', '', 'per_calendar_month', 600, '5', 0), ('a', 'tokens', '', 'per_calendar_month', 660, '5', 0);"
    ))
    .unwrap();
    drop(old);
    assert_eq!(
        budget_starts(&Journal::open(directory.path()).unwrap()),
        [
            ("per_calendar_month", 645),
            ("per_calendar_month", 705),
            ("per_calendar_week", 645),
            ("per_hour", 600)
        ]
        .map(|(period, start)| (period.to_owned(), start))
    );
}

fn budget_starts(journal: &Journal) -> Vec<(String, i64)> {
    let mut rows =
        journal.connection.prepare("SELECT period, start FROM budget ORDER BY period, start").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.collect::<rusqlite::Result<_>>().unwrap()
}

/// Nothing tells a clock that is ahead from time that has passed.
#[test]
fn a_start_with_a_clock_that_is_far_ahead_loses_no_sum() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    let now = 30_000_000;
    let day = 24 * 60;
    let rows = [
        (Window::Hour, now - 2 * day),
        (Window::Hour, now),
        (Window::Day, now),
        (Window::CalendarMonth, now),
    ];
    for (window, at) in rows {
        let key = BudgetKey { name: "a".into(), unit: "tokens".into(), host: None };
        let row = BudgetRow { key, window, start: window.start(at), spent: BudgetAmount::ONE, payments: 0 };
        super::budgets::write_budget(&journal.connection, &row).unwrap();
    }
    journal.restore_budgets(now + 400 * day).unwrap();
    let kept = |window: Window| (window.key().to_owned(), window.start(now) as i64);
    let expected = [Window::CalendarMonth, Window::Day, Window::Hour].map(kept);
    assert_eq!(
        budget_starts(&journal),
        expected,
        "what had left its window before the latest payment is gone"
    );
    journal.restore_budgets(now - 400 * day).unwrap();
    assert_eq!(budget_starts(&journal), expected);
}

#[test]
fn paused_hosts_are_there_after_reopening_and_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(FILE)).unwrap();
    let earlier = MIGRATIONS[..9].concat();
    old.execute_batch(&format!(
        "{earlier} PRAGMA user_version = 9; INSERT INTO request_key (id, key) VALUES (1, zeroblob(32));"
    ))
    .unwrap();
    drop(old);
    let paused = |host: &str, since| {
        let reason = if host == "c" { PauseReason::PriceRise } else { PauseReason::Undelivered };
        PausedHost { host: host.to_owned(), since, reason }
    };
    let mut journal = Journal::open(directory.path()).unwrap();
    for (host, since) in [("a", 5), ("b", 6), ("a", 7), ("c", 8)] {
        journal.pause_host(&paused(host, since), 3).unwrap();
    }
    drop(journal);
    let mut journal = Journal::open(directory.path()).unwrap();
    assert_eq!(journal.paused_hosts().unwrap(), [paused("b", 6), paused("a", 7), paused("c", 8)]);
    journal.pause_host(&paused("d", 9), 3).unwrap();
    assert_eq!(journal.paused_hosts().unwrap(), [paused("a", 7), paused("c", 8), paused("d", 9)]);
    assert!(journal.resume_host("c").unwrap() && !journal.resume_host("c").unwrap());
    assert_eq!(journal.paused_hosts().unwrap(), [paused("a", 7), paused("d", 9)]);
}

#[test]
fn paid_prices_are_there_after_reopening_bounded_and_forgotten_with_the_pause() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    let paid = |host: &str, lowest: u64| PaidPrice { host: host.into(), lowest: lowest.into() };
    let learn = |journal: &mut Journal, byte, host, lowest| {
        journal.learn_paid_price(&RequestId([byte; 32]), &paid(host, lowest), 3).unwrap();
    };
    learn(&mut journal, 1, "a", 9);
    learn(&mut journal, 2, "b", 8);
    learn(&mut journal, 1, "a", 7);
    drop(journal);
    let mut journal = Journal::open(directory.path()).unwrap();
    let [one, two] = [1, 2].map(|byte| RequestId([byte; 32]));
    assert_eq!(journal.paid_prices().unwrap(), [(two, paid("b", 8)), (one, paid("a", 7))]);
    learn(&mut journal, 3, "c", 1);
    learn(&mut journal, 4, "c", 1);
    assert_eq!(journal.paid_prices().unwrap()[0], (one, paid("a", 7)));
    assert_eq!(journal.paid_prices().unwrap().len(), 3);
    journal.resume_host("c").unwrap();
    assert_eq!(journal.paid_prices().unwrap(), [(one, paid("a", 7))]);
}

/// Version 17 has what the chain has shown in the place of the receipt.
#[test]
fn rows_of_the_ledger_of_an_older_version_keep_their_codes_and_say_what_the_chain_has_shown() {
    let directory = tempfile::tempdir().unwrap();
    let old = Connection::open(directory.path().join(FILE)).unwrap();
    let earlier = MIGRATIONS[..17].concat();
    old.execute_batch(&format!(
        "{earlier} PRAGMA user_version = 17; INSERT INTO request_key (id, key) VALUES (1, zeroblob(32));"
    ))
    .unwrap();
    let (key, payer) = (LedgerKey::new(&[7; 32]), Address([0xaa; 20]));
    let mut seal = RowSeal::default();
    for (seq, state, receipt) in [
        (1, LedgerState::InDoubt, ""),
        (2, LedgerState::PaidNotDelivered, "confirmed"),
        (3, LedgerState::Expired, ""),
    ] {
        let row = LedgerRow {
            seq,
            at: 5,
            payment: seq,
            state,
            previous: None,
            parties: Arc::default(),
            method: "GET".to_owned(),
            path: "/".to_owned(),
            price: 9.into(),
            counts: 9.into(),
            adjusts: SignedAmount::default(),
            total: None,
            nonce: "aa".to_owned(),
            receipt: receipt.to_owned(),
            confirmation: None,
            offer: String::new(),
        };
        seal = key.seal(seal, &row.encode());
        let sql = "INSERT INTO ledger VALUES (1, ?1, 1, 5, ?1, ?2, '', '', 'GET', '/', '9', '9', '0', '', 'aa', ?3, ?4)";
        old.execute(sql, params![seq as i64, state.name(), receipt, seal.0]).unwrap();
    }
    old.execute_batch("INSERT INTO ledger_parties VALUES (1, 1, '', '', '', '', '', '', '', '', '')")
        .unwrap();
    let head = "INSERT INTO ledger_chain VALUES (1, ?1, 3, ?2, 9, 0, ?3, ?3)";
    old.execute(head, params![payer.to_string(), seal.0, RowSeal::default().0]).unwrap();
    drop(old);
    for is_migrated in [false, true] {
        if is_migrated {
            drop(Journal::open(directory.path()).unwrap());
        }
        let mut reader = LedgerReader::open(directory.path()).unwrap().unwrap();
        let verified = reader.verify(&key, payer).unwrap();
        assert_eq!((verified.first, verified.last), (1, 3), "migrated: {is_migrated}");
        let mut shown = Vec::new();
        reader.rows(|row| shown.push((row.receipt, row.confirmation))).unwrap();
        let none = String::new;
        assert_eq!(
            shown,
            [(none(), None), (none(), Some(OnChainUse::Used)), (none(), Some(OnChainUse::Unused))],
            "migrated: {is_migrated}"
        );
    }
}

#[test]
fn authorizations_are_forgotten_some_time_after_their_expiry() {
    let directory = tempfile::tempdir().unwrap();
    let journal = Journal::open(directory.path()).unwrap();
    let known = |name: &str, valid_before: Option<i64>, taken_until: Option<i64>| {
        let sql =
            "INSERT INTO authorization (nonce, scheme, amount, asset, payee, at, valid_before, taken_until)
             VALUES (?1, 'x402', '1', 'eip155:1', 'bob', 0, ?2, ?3)";
        journal.connection.execute(sql, params![name, valid_before, taken_until]).unwrap();
    };
    known("old", Some(999), None);
    known("taken", Some(999), Some(1000));
    known("young", Some(1000), None);
    known("unknown", None, None);
    journal.forget_authorizations(1000).unwrap();
    let mut left = journal.connection.prepare("SELECT nonce FROM authorization ORDER BY rowid").unwrap();
    let left: Vec<String> =
        left.query_map([], |row| row.get(0)).unwrap().collect::<rusqlite::Result<_>>().unwrap();
    assert_eq!(left, ["taken", "young", "unknown"]);
}

#[test]
fn a_file_of_a_newer_version_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    Journal::open(directory.path()).unwrap().connection.pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Journal::open(directory.path()), Err(JournalError::Newer { found: 99, .. })));
}

#[test]
fn what_became_of_an_authorization_is_synced_later_and_everything_else_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(directory.path()).unwrap();
    let nonce = [7; 32];
    let ends = [
        Record::AuthorizationEnded(nonce),
        Record::AuthorizationTaken(nonce, 5),
        Record::AuthorizationUnneeded(nonce),
        Record::AuthorizationServed(nonce),
    ];
    for end in &ends {
        journal.write(None, std::slice::from_ref(end)).unwrap();
        assert!(journal.has_unsynced, "{end:?}");
        // Writes of other kinds do not set it.
        assert_eq!(synchronous(&journal), 2, "{end:?}: not FULL");
        journal.sync();
        assert!(!journal.has_unsynced, "{end:?}");
    }
    journal.write(None, &ends).unwrap();
    assert!(journal.has_unsynced);
    // A write that something waits for includes what came before, also in the same transaction.
    for record in
        [Record::Frozen(true), Record::AuthorizationUsed(nonce, 5), Record::AuthorizationUnused(nonce)]
    {
        journal.write(None, &[ends[0].clone(), record.clone()]).unwrap();
        assert!(!journal.has_unsynced, "{record:?}");
        assert_eq!(synchronous(&journal), 2, "{record:?}: not FULL");
    }
}

fn synchronous(journal: &Journal) -> i64 {
    journal.connection.query_row("PRAGMA synchronous", [], |row| row.get(0)).unwrap()
}
