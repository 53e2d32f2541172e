//! Names in front of a parenthesis that leave a statement a read, for callers who refuse unknown functions.

use std::cmp::Ordering;

/// Functions of the system catalogue that only read, one a line, sorted by byte behind a comment. Made by
/// `scripts/catalog-functions`.
const FUNCTIONS: &str = include_str!("harmless.txt");

/// Words of the grammar of queries, and methods of `TABLESAMPLE`, sorted.
const SYNTAX: &[&str] = &[
    "all",
    "and",
    "any",
    "array",
    "as",
    "asymmetric",
    "bernoulli",
    "between",
    "by",
    "case",
    "cast",
    "character",
    "coalesce",
    "columns",
    "cube",
    "current_time",
    "current_timestamp",
    "dec",
    "decimal",
    "distinct",
    "else",
    "except",
    "exists",
    "filter",
    "float",
    "for",
    "from",
    "greatest",
    "group",
    "grouping",
    "having",
    "ilike",
    "in",
    "intersect",
    "join",
    "json",
    "json_array",
    "json_arrayagg",
    "json_exists",
    "json_objectagg",
    "json_query",
    "json_scalar",
    "json_serialize",
    "json_table",
    "json_value",
    "lateral",
    "least",
    "limit",
    "localtime",
    "localtimestamp",
    "materialized",
    "national",
    "nchar",
    "not",
    "nullif",
    "offset",
    "on",
    "only",
    "operator",
    "or",
    "over",
    "rollup",
    "row",
    "select",
    "sets",
    "some",
    "symmetric",
    "system",
    "system_rows",
    "system_time",
    "then",
    "to",
    "treat",
    "trim",
    "union",
    "using",
    "values",
    "variadic",
    "varying",
    "when",
    "where",
    "with",
    "xmlattributes",
    "xmlconcat",
    "xmlelement",
    "xmlforest",
    "xmlnamespaces",
    "xmlparse",
    "xmlpi",
    "xmlroot",
    "xmlserialize",
    "xmltable",
];

/// Whether a function of the catalogue is known to do nothing but read. The name is as the server has it.
pub(super) fn is_function(name: &[u8]) -> bool {
    let list = FUNCTIONS.as_bytes();
    let (mut low, mut high) = (0, list.len());
    while low < high {
        let middle = low + (high - low) / 2;
        let begin =
            list[low..middle].iter().rposition(|byte| *byte == b'\n').map_or(low, |found| low + found + 1);
        let end =
            list[middle..].iter().position(|byte| *byte == b'\n').map_or(list.len(), |found| middle + found);
        match list[begin..end].cmp(name) {
            Ordering::Less => low = end + 1,
            Ordering::Greater => high = begin,
            Ordering::Equal => return true,
        }
    }
    false
}

/// Whether an unquoted word in front of a parenthesis belongs to the grammar: no call of a function. The word is in
/// lower case.
pub(super) fn is_syntax(word: &[u8]) -> bool {
    SYNTAX.binary_search_by(|known| known.as_bytes().cmp(word)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::functions::{Folded, effect};

    fn names() -> impl Iterator<Item = &'static str> {
        FUNCTIONS.lines().filter(|line| !line.starts_with('#'))
    }

    #[test]
    fn the_lists_are_sorted_run_scripts_catalog_functions_to_make_them_anew() {
        assert!(FUNCTIONS.starts_with("# Made by scripts/catalog-functions"));
        assert!(names().zip(names().skip(1)).all(|(one, next)| one < next));
        assert!(SYNTAX.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(names().count() > 2000);
    }

    #[test]
    fn every_name_is_found_and_no_other() {
        for name in names() {
            assert!(is_function(name.as_bytes()), "{name}");
        }
        for name in ["", "#", "a", "abb", "lowe", "lowerr", "zzz", "nextval", "txid_current", "abbrev\nabs"] {
            assert!(!is_function(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn no_function_is_in_both_lists() {
        for name in names() {
            assert_eq!(effect(&Folded::new(name.as_bytes())), None, "{name}");
        }
    }
}
