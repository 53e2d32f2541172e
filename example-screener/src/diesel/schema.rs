//! The tables, as Diesel sees them. The migration that makes them is the same for both ORMs.

diesel::table! {
    stocks (id) {
        id -> Integer,
        symbol -> Text,
        name -> Text,
        country -> Nullable<Text>,
        currency -> Nullable<Text>,
        industries -> Array<Text>,
        indices -> Array<Text>,
        founded -> Nullable<Integer>,
        employees -> Nullable<Integer>,
    }
}

diesel::table! {
    closes (stock_id, date) {
        stock_id -> Integer,
        date -> Date,
        close -> Double,
    }
}

diesel::table! {
    watchlist (user_name, stock_id) {
        user_name -> Text,
        stock_id -> Integer,
        added_at -> Timestamptz,
    }
}

diesel::joinable!(closes -> stocks (stock_id));
diesel::joinable!(watchlist -> stocks (stock_id));
diesel::allow_tables_to_appear_in_same_query!(stocks, closes, watchlist);
