//! Which statements look alike without their values.

use routing_core::sql::shape;

const STATEMENT: &str = "SELECT name FROM stocks WHERE id IN (1, 2) AND country = 'DE' LIMIT 10";

#[test]
fn values_layout_and_letter_case_do_not_change_a_shape() {
    for same in [
        "SELECT name FROM stocks WHERE id IN (7, 8) AND country = 'FR' LIMIT 20",
        "select NAME from Stocks where ID in ($1, $2) and Country = $3 limit $4",
        "  SELECT name\nFROM stocks -- hot\nWHERE id IN(1,2)AND country='DE'LIMIT 10 ; ",
        "/* x */ SELECT name FROM stocks WHERE id IN (1) AND country = E'it\\'s' LIMIT 1e3;;",
        "SELECT name FROM stocks WHERE id IN (1, 2, 3, 4, 5, $1) AND country = $q$it's$q$ LIMIT .5",
        "SELECT name FROM stocks WHERE id IN (0x1F, 'a') AND country = N'DE' LIMIT 1_000",
    ] {
        assert_eq!(shape(same), shape(STATEMENT), "{same}");
    }
}

#[test]
fn everything_else_changes_it() {
    let statements = [
        STATEMENT,
        "SELECT name FROM stock WHERE id IN (1, 2) AND country = 'DE' LIMIT 10",
        "SELECT names FROM stocks WHERE id IN (1, 2) AND country = 'DE' LIMIT 10",
        "SELECT name FROM stocks WHERE id IN (1, 2) OR country = 'DE' LIMIT 10",
        "SELECT name FROM stocks WHERE id IN (1, 2) AND country <> 'DE' LIMIT 10",
        "SELECT name FROM stocks WHERE id NOT IN (1, 2) AND country = 'DE' LIMIT 10",
        "SELECT name FROM stocks WHERE id IN (1, x) AND country = 'DE' LIMIT 10",
        "SELECT name FROM stocks WHERE id IN (x) AND country = 'DE' LIMIT 10",
        "SELECT \"name\" FROM stocks WHERE id IN (1, 2) AND country = 'DE' LIMIT 10",
        "SELECT \"Name\" FROM stocks WHERE id IN (1, 2) AND country = 'DE' LIMIT 10",
        "SELECT name FROM stocks WHERE id IN (1, 2) AND country = 'DE'",
        "SELECT name FROM stocks WHERE id IN (1, 2) AND country = 'DE' LIMIT 10 FOR UPDATE",
        "SELECT name FROM stocks WHERE id IN (1, 2) AND country = 'DE'; LIMIT 10",
        "SELECT f(1, 2)",
        "SELECT f(1)",
        "SELECT f(1)::int",
        "SELECT a.b",
        "SELECT a b",
        "SELECT ab",
        "SELECT a_long_name_of_a_column_1",
        "SELECT a_long_name_of_a_column_2",
        "SELECT a_long_name_of_a_columns",
        "",
        "SELECT",
    ];
    for (at, one) in statements.iter().enumerate() {
        for other in &statements[at + 1..] {
            assert_ne!(shape(one), shape(other), "{one} and {other}");
        }
    }
}

#[test]
fn a_shape_prints_as_a_number_of_sixteen_digits() {
    let text = shape("SELECT 1").to_string();
    assert_eq!(text.len(), 16);
    assert_eq!(u64::from_str_radix(&text, 16).unwrap(), shape("SELECT 2").get());
}
