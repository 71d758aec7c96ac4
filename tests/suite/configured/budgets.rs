//! `[[budget]]`: what it counts, what it applies to, and what is not valid.

use super::*;
use tollpass::protocol::budget::{Budget, BudgetUnit};

fn with(budget: &str, more: &str) -> String {
    format!("{PAYING}[[budget]]\nname = \"daily\"\n{budget}\n[[pay]]\nhost = \"*\"\nmax_price = 7\n{more}\n")
}

fn budget(keys: &str) -> Arc<Budget> {
    let config = parse(&with(keys, ""), &[]).unwrap_or_else(|error| panic!("{keys}: {error}"));
    Arc::clone(&config.policy.budgets[0])
}

#[test]
fn limits_are_exact_in_their_unit() {
    for (per_day, shown) in [
        ("7", "7"),
        ("0", "0"),
        ("\"0.5 USDC\"", "0.5 USDC"),
        ("\"0 USDC\"", "0 USDC"),
        ("\"1000 units of USDC\"", "0.001 USDC"),
        ("\"0.000000000000000001 RDN\"", "0.000000000000000001 RDN"),
        ("\"$5\"", "$5"),
        ("\"$0.000000000000000001\"", "$0.000000000000000001"),
    ] {
        let budget = budget(&format!("wallet = true\nper_day = {per_day}"));
        assert_eq!(budget.unit.show(budget.limits.per_day.unwrap()), shown);
        assert_eq!((budget.limits.per_hour, budget.limits.payments), (None, None));
    }
    let counts_only = budget("wallet = true\npayments = 3");
    assert_eq!((&counts_only.unit, counts_only.limits.payments), (&BudgetUnit::Payments, Some(3)));
}

#[test]
fn what_a_budget_applies_to() {
    let second = "[[budget]]\nname = \"own\"\nhosts = [\"*.b.example\", \"c.example\"]\neach = true\ntotal = 9\n\
                  [[budget]]\nname = \"named\"\ntotal = 9\n[[pay]]\nhost = \"d.example\"\nmax_price = 7\n\
                  budgets = [\"named\", \"all\"]\n[[budget]]\nname = \"all\"\nwallet = true\ntotal = 9\n";
    let config = parse(&format!("{PAYING}{second}"), &[]).unwrap();
    let policy = &config.policy;
    let Allow::Pay { budgets: named, .. } = &policy.rules[0].allow else { panic!("it denies") };
    for (host, rule, expected) in [
        ("a.example", None, &["all"][..]),
        ("x.b.example", None, &["own/x.b.example", "all"]),
        ("Y.B.example.", None, &["own/y.b.example", "all"]),
        ("b.example", None, &["all"]),
        ("c.example", None, &["own/c.example", "all"]),
        ("d.example", Some(named), &["named", "all"]),
    ] {
        let named: &[Arc<Budget>] = rule.map_or(&[], |named| named);
        let found = policy.budgets(host, named, &[]);
        let found: Vec<String> = found
            .iter()
            .map(|budget| match &budget.host {
                Some(host) => format!("{}/{host}", budget.budget.name),
                None => budget.budget.name.to_string(),
            })
            .collect();
        assert_eq!(found, expected, "{host}");
    }
}

#[test]
fn a_client_has_budgets_too() {
    let client = "[[client]]\nname = \"laptop\"\ntoken_file = \"token\"\nbudgets = [\"daily\"]\n";
    let config = parse(&with("per_hour = 5", client), &[]).unwrap();
    assert_eq!(&*config.clients[0].client.budgets[0].name, "daily");
    assert!(config.policy.distinguishes_clients);
}

#[test]
fn each_fault_of_a_budget_names_its_key() {
    let twice = "[[budget]]\nname = \"daily\"\nwallet = true\ntotal = 1\n";
    for (keys, more, key, problem) in [
        ("wallet = true", "", "budget[0]", "no limit"),
        ("per_day = 5", "", "budget", "applies to nothing"),
        ("wallet = true\nper_day = -5", "", "budget[0].per_day", "negative"),
        ("wallet = true\nper_day = 1.5", "", "budget[0].per_day", ""),
        ("wallet = true\nper_day = \"0.0000001 USDC\"", "", "budget[0].per_day", "more than 6 decimals"),
        ("wallet = true\nper_day = \"5 EUR\"", "", "budget[0].per_day", "no token is known"),
        ("wallet = true\nper_day = \"$1e9\"", "", "budget[0].per_day", ""),
        ("wallet = true\nper_day = \"$5\"\ntotal = \"5 USDC\"", "", "budget[0].total", "another unit"),
        ("wallet = true\nper_day = \"$5\"\ntotal = 5", "", "budget[0].total", "another unit"),
        ("wallet = true\npayments = -1", "", "budget[0].payments", ""),
        ("wallet = true\nhosts = [\"*\"]\ntotal = 1", "", "budget[0].hosts", "no effect"),
        ("each = true\nwallet = true\ntotal = 1", "", "budget[0].each", "without hosts"),
        ("hosts = [\"a.*\"]\ntotal = 1", "", "budget[0].hosts", ""),
        ("wallet = true\ntotal = 1", twice, "budget[1].name", "same name"),
        ("wallet = true\ntotal = 1", "budgets = [\"dayly\"]", "pay[0].budgets", "no [[budget]] is named"),
        ("wallet = true\nper_week = 1", "", "budget[0].per_week", "unknown"),
    ] {
        let error = parse(&with(keys, more), &[]).expect_err(keys).to_string();
        assert!(error.contains(key) && error.contains(problem), "{keys}: {error}");
    }
}

#[test]
fn a_calendar_has_a_time_zone_and_a_first_day_of_the_week() {
    for keys in [
        "per_calendar_day = 7",
        "per_calendar_day = 7\ntime_zone = \"Europe/Berlin\"",
        "per_calendar_month = 7\ntime_zone = \"America/Argentina/Buenos_Aires\"",
        "per_calendar_week = 7\nweek_start = \"sunday\"\nper_hour = 1",
    ] {
        let budget = budget(&format!("wallet = true\n{keys}"));
        let limits = &budget.limits;
        let all = [limits.per_calendar_day, limits.per_calendar_week, limits.per_calendar_month];
        assert_eq!(all.iter().flatten().count(), 1, "{keys}");
    }
    for (keys, expected) in [
        (
            "per_calendar_day = 7\ntime_zone = \"Europe/Atlantis\"",
            "time_zone: \"Europe/Atlantis\" is not a known time zone -> write an IANA name",
        ),
        ("per_calendar_day = 7\ntime_zone = \"../etc\"", "is not a known time zone"),
        ("per_calendar_week = 7\nweek_start = \"noon\"", "week_start: "),
        ("per_day = 7\ntime_zone = \"UTC\"", "time_zone: has no effect without per_calendar_day, "),
        (
            "per_calendar_day = 7\nweek_start = \"sunday\"",
            "week_start: has no effect without per_calendar_week ",
        ),
        ("per_calendar_day = \"1 USDC\"\nper_day = 7", "is in another unit than the other limits"),
    ] {
        let error = parse(&with(&format!("wallet = true\n{keys}"), ""), &[]).unwrap_err().to_string();
        assert!(error.replace("\n    -> ", " -> ").contains(expected), "{keys}: {error}");
    }
}
