// The items as a collection that everybody may read and write, and their count as a view.
// Ids are texts in PocketBase; the rows come in by id, so @rowid is the order of the numbers. Their
// pattern is the default one: with any other an insert looks through the table for the id.
migrate((app) => {
  const items = new Collection({
    type: "base",
    name: "item",
    listRule: "",
    viewRule: "",
    createRule: "",
    fields: [
      { name: "id", type: "text", system: true, primaryKey: true, required: true,
        min: 1, max: 20, pattern: "^[a-z0-9]+$" },
      { name: "category", type: "text", required: true },
      { name: "name", type: "text", required: true },
      { name: "price", type: "number" },
      { name: "stock", type: "number" },
      { name: "note", type: "text" },
    ],
    indexes: ["CREATE INDEX item_category ON item (category)"],
  });
  app.save(items);

  const counts = new Collection({
    type: "view",
    name: "item_count",
    listRule: "",
    viewQuery: "SELECT category AS id, COUNT(*) AS items FROM item GROUP BY category",
  });
  app.save(counts);

  // Nobody else here writes a log line per request.
  const settings = app.settings();
  settings.logs.maxDays = 0;
  app.save(settings);
});
