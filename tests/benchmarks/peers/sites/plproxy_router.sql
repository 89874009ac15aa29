-- The router: no rows, only proxies of the functions, by the hash of the id over one partition.
CREATE EXTENSION plproxy;

CREATE TYPE item AS (
    id bigint, category text, name text, price numeric, stock integer, note text
);

CREATE FUNCTION get_item(i_id bigint) RETURNS SETOF item LANGUAGE plproxy AS
$$ CLUSTER 'items'; RUN ON hashint8(i_id); $$;

CREATE FUNCTION items_in(i_category text) RETURNS SETOF item LANGUAGE plproxy AS
$$ CLUSTER 'items'; RUN ON ALL; $$;

CREATE FUNCTION insert_item(
    i_id bigint, i_category text, i_name text, i_price numeric, i_stock integer, i_note text
) RETURNS bigint LANGUAGE plproxy AS
$$ CLUSTER 'items'; RUN ON hashint8(i_id); $$;
