-- The functions on the database that holds the rows: PL/Proxy calls those of the same name.
CREATE FUNCTION get_item(i_id bigint) RETURNS SETOF item LANGUAGE sql STABLE AS
$$ SELECT id, category, name, price, stock, note FROM item WHERE id = i_id $$;

CREATE FUNCTION items_in(i_category text) RETURNS SETOF item LANGUAGE sql STABLE AS
$$ SELECT id, category, name, price, stock, note FROM item
   WHERE category = i_category ORDER BY id LIMIT 101 $$;

CREATE FUNCTION insert_item(
    i_id bigint, i_category text, i_name text, i_price numeric, i_stock integer, i_note text
) RETURNS bigint LANGUAGE sql VOLATILE AS
$$ INSERT INTO item VALUES (i_id, i_category, i_name, i_price, i_stock, i_note) RETURNING id $$;
