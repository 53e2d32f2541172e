//! What holds of every text, with a second opinion: a parser that knows nothing of the classifier.
//!
//! [`check`] is the fuzz target, here and in `fuzz/`.

use std::ops::ControlFlow;

use routing_core::sql::{Classifier, StatementKind, UnknownFunctions, classify, keeps_session_state, shape};
use sqlparser::ast::{
    Expr, ObjectName, ObjectNamePart, Query, Select, SetExpr, Statement, TableFactor, UtilityOption, Visit,
    Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

/// Panics if a law does not hold of this text.
pub(crate) fn check(sql: &str) {
    let kind = classify(sql);
    let careful = Classifier::new(UnknownFunctions::Refuse).classify(sql);
    assert!(careful >= kind, "refusing unknown functions made {sql:?} {careful:?}, not {kind:?}");

    if kind == StatementKind::Read
        && let Some(objection) = objection(sql)
    {
        panic!("{sql:?} is said to read, but {objection}");
    }

    let commented = format!("/* a /* ' */ */ {sql}\n-- b");
    assert_eq!(classify(&commented), kind, "comments around {sql:?}");
    assert_eq!(shape(&format!("/* a */{sql}")), shape(sql), "a comment before {sql:?}");

    let longer = format!("{sql}\n; DELETE FROM t");
    assert_ne!(classify(&longer), StatementKind::Read, "a statement behind {sql:?}");
    if kind == StatementKind::Read {
        assert!(keeps_session_state(&longer), "a statement behind {sql:?}");
    }
}

/// Whether the parser cuts a text otherwise than PostgreSQL, so that its opinion does not count. The server ends an operator
/// where a comment begins; the parser sees `#--` as the operator `#-` and a minus, and has more of that kind.
fn is_misread(sql: &str) -> bool {
    let begins_comment = |rest: &[u8]| rest == b"--" || rest == b"/*";
    sql.as_bytes()
        .windows(3)
        .any(|piece| b"+-*/<>=~!@#%^&|`?".contains(&piece[0]) && begins_comment(&piece[1..]))
}

/// Why this text is no read, as the parser sees it. `None` when it sees nothing, or cannot parse the text: it does not
/// know all of PostgreSQL's grammar.
pub(crate) fn objection(sql: &str) -> Option<String> {
    if is_misread(sql) {
        return None;
    }
    parsed(sql)
}

fn parsed(sql: &str) -> Option<String> {
    let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).ok()?;
    let (Some(statement), 0) = (statements.pop(), statements.len()) else {
        return Some("it is not one statement".to_owned());
    };
    match &statement {
        Statement::Explain { analyze, options, statement, .. } => {
            let executes = *analyze || options.iter().flatten().any(may_execute);
            executes.then(|| found(statement.as_ref())).flatten()
        }
        // MySQL's way to describe a table.
        Statement::ExplainTable { .. } => None,
        Statement::Query(_) => found(&statement),
        Statement::Copy { to: true, .. } => found(&statement),
        other => (!other.to_string().starts_with("SHOW")).then(|| format!("it is {other}")),
    }
}

fn may_execute(option: &UtilityOption) -> bool {
    let off = option.arg.as_ref().is_some_and(|value| {
        let value = value.to_string();
        value == "0" || value.eq_ignore_ascii_case("false") || value.eq_ignore_ascii_case("off")
    });
    ["analyze", "analyse"].contains(&option.name.value.to_ascii_lowercase().as_str()) && !off
}

fn found(statement: &Statement) -> Option<String> {
    match statement.visit(&mut Harm) {
        ControlFlow::Break(harm) => Some(harm),
        ControlFlow::Continue(()) => None,
    }
}

struct Harm;

fn called(name: &ObjectName) -> ControlFlow<String> {
    const HARMFUL: [&str; 12] = [
        "nextval",
        "setval",
        "currval",
        "lastval",
        "set_config",
        "pg_notify",
        "pg_advisory_lock",
        "lo_create",
        "txid_current",
        "pg_terminate_backend",
        "dblink_exec",
        "pg_try_advisory_xact_lock",
    ];
    let last = name.0.last().and_then(ObjectNamePart::as_ident);
    let last = last.map(|name| name.value.to_ascii_lowercase()).unwrap_or_default();
    if HARMFUL.contains(&last.as_str()) {
        return ControlFlow::Break(format!("it calls {last}"));
    }
    ControlFlow::Continue(())
}

impl Visitor for Harm {
    type Break = String;

    fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<String> {
        match statement {
            Statement::Query(_) | Statement::Copy { .. } => ControlFlow::Continue(()),
            other => ControlFlow::Break(format!("holds {other}")),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        if !query.locks.is_empty() {
            return ControlFlow::Break(format!("locks in {query}"));
        }
        match query.body.as_ref() {
            SetExpr::Insert(change)
            | SetExpr::Update(change)
            | SetExpr::Delete(change)
            | SetExpr::Merge(change) => ControlFlow::Break(format!("holds {change}")),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<String> {
        match &select.into {
            Some(into) => ControlFlow::Break(format!("makes a table: {into}")),
            None => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<String> {
        match expr {
            Expr::Function(function) => called(&function.name),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<String> {
        match factor {
            TableFactor::Function { name, .. } | TableFactor::Table { name, args: Some(_), .. } => {
                called(name)
            }
            _ => ControlFlow::Continue(()),
        }
    }
}

#[test]
fn what_the_second_opinion_is_known_to_misread_it_misreads() {
    for sql in ["SHOW#-- x; SELECT 1", "SELECT pg_catg.U&--ex INTO ('s')"] {
        assert!(is_misread(sql), "{sql}");
        assert_eq!(classify(sql), StatementKind::Read, "{sql}");
        assert!(parsed(sql).is_some(), "the parser has learned to read {sql}: strike the exception");
    }
}

#[test]
fn the_second_opinion_sees_each_kind_of_harm() {
    for sql in [
        "SELECT 1; SELECT 2",
        "DELETE FROM t",
        "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d",
        "WITH a AS (SELECT 1) UPDATE t SET a = 1",
        "SELECT * FROM (SELECT * FROM t FOR UPDATE) q",
        "SELECT * INTO u FROM t",
        "SELECT 1 + nextval('s')",
        "SELECT * FROM dblink_exec('a', 'b')",
        "EXPLAIN (ANALYZE) DELETE FROM t",
        "EXPLAIN ANALYZE SELECT * FROM t FOR SHARE",
        "COPY (SELECT nextval('s')) TO STDOUT",
    ] {
        assert!(objection(sql).is_some(), "{sql}");
    }
    for sql in ["SELECT 1", "EXPLAIN DELETE FROM t", "EXPLAIN (ANALYZE off) DELETE FROM t", "SHOW x"] {
        assert_eq!(objection(sql), None, "{sql}");
    }
}
