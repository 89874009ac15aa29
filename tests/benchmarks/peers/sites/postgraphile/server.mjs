// PostGraphile with its recommended preset in library mode, one process per core.
import cluster from "node:cluster";
import { createServer } from "node:http";
import { postgraphile } from "postgraphile";
import { makePgService } from "postgraphile/adaptors/pg";
import { grafserv } from "postgraphile/grafserv/node";
import { PostGraphileAmberPreset } from "postgraphile/presets/amber";

// Older than PostGraphile wants, but what many systems have: Node 20 lacks this one function, and
// without it every read fails.
Promise.withResolvers ??= function () {
  const made = {};
  made.promise = new this((resolve, reject) => Object.assign(made, { resolve, reject }));
  return made;
};

if (cluster.isPrimary) {
  for (let i = 0; i < Number(process.env.PEER_WORKERS); i++) cluster.fork();
} else {
  const pgl = postgraphile({
    extends: [PostGraphileAmberPreset],
    pgServices: [
      makePgService({ connectionString: process.env.PEER_DSN, schemas: ["public"], poolConfig: { max: 10 } }),
    ],
    grafserv: { watch: false, graphiql: false },
    grafast: { explain: false },
  });
  const server = createServer();
  server.keepAliveTimeout = 75_000;
  await pgl.createServ(grafserv).addTo(server);
  server.listen(Number(process.env.PEER_PORT), "127.0.0.1");
}
