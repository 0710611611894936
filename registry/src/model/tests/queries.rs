use super::*;

#[test]
fn a_query_has_20_hits_by_default() {
    let query = Query::text("left pad").unwrap();
    assert_eq!((query.words(), query.limit(), query.offset()), ("left pad", 20, 0));
    assert!(query.categories().is_empty() && query.tags().is_empty() && query.author().is_none());
    let query = Query::builder().category("text").tag("a").tag("b").author("Ada").limit(100).offset(10_000);
    let query = query.build().unwrap();
    assert_eq!((query.categories(), query.tags().len(), query.author()), (&["text".to_owned()][..], 2, Some("Ada")));
    assert_eq!((query.limit(), query.offset()), (100, 10_000));
}

#[test]
fn the_limits_of_a_query_are_checked_by_the_builder_and_by_deserialisation() {
    let range = |field, given, min, max| FieldError::OutOfRange { field, given, min, max };
    let many = (0..9).fold(Query::builder(), |query, n| query.tag(format!("t{n}")));
    let cases = [
        (Query::builder().text("a".repeat(257)), FieldError::TooLong { field: "text", len: 257, max: 256 }),
        (Query::builder().text("a\0"), FieldError::Character { field: "text", character: '\0' }),
        (Query::builder().category("A"), FieldError::Character { field: "categories", character: 'A' }),
        (Query::builder().author(" "), FieldError::Empty { field: "authors" }),
        (Query::builder().limit(0), range("limit", 0, 1, 100)),
        (Query::builder().limit(101), range("limit", 101, 1, 100)),
        (Query::builder().offset(10_001), range("offset", 10_001, 0, 10_000)),
        (many, FieldError::TooMany { field: "tags", count: 9, max: 8 }),
    ];
    for (builder, error) in cases {
        let json = serde_json::to_string(&builder).unwrap();
        assert_eq!(builder.build(), Err(error.clone()));
        let read = serde_json::from_str::<Query>(&json).unwrap_err();
        assert!(read.to_string().contains(&error.to_string()), "{read}");
    }
}

#[test]
fn a_query_survives_a_round_trip_through_json() {
    let query = Query::builder().text("x \"y").tag("z").author("Ada").offset(3).build().unwrap();
    assert_eq!(serde_json::from_str::<Query>(&serde_json::to_string(&query).unwrap()).unwrap(), query);
    assert_eq!(serde_json::from_str::<Query>("{}").unwrap(), Query::text("").unwrap());
}
