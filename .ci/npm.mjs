// Lays out an npm package that installs a program, for `npm pack`: npm.mjs BINARY VERSION DIRECTORY
import { chmodSync, cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const [binary, version, directory] = process.argv.slice(2);
const root = join(import.meta.dirname, "..");
const [, description] = /^description = "(.*)"$/m.exec(readFileSync(join(root, "Cargo.toml"), "utf8"));

mkdirSync(join(directory, "bin"), { recursive: true });
cpSync(binary, join(directory, "bin/tollpass"));
chmodSync(join(directory, "bin/tollpass"), 0o755);
for (const file of ["README.md", "LICENSE"]) {
  cpSync(join(root, file), join(directory, file));
}
const linux = process.platform === "linux" ? { libc: ["glibc"] } : {};
const manifest = {
  name: "tollpass",
  version,
  description,
  license: "MIT",
  bin: { tollpass: "bin/tollpass" },
  files: ["bin"],
  os: [process.platform],
  cpu: [process.arch],
  ...linux,
};
writeFileSync(join(directory, "package.json"), JSON.stringify(manifest, null, 2) + "\n");
