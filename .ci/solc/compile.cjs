// Compiles contracts: those of the development chain, and those of the tests.
// usage: node compile.cjs MODULES SOURCES OUTPUT [--check]
//   MODULES  node_modules that holds solc
//   SOURCES  directory with the .sol files
//   OUTPUT   compiled.json, written, or with --check only compared
"use strict";
const fs = require("node:fs");
const path = require("node:path");

const [modules, sources, output, mode] = process.argv.slice(2);
const solc = require(path.join(path.resolve(modules), "solc"));

const input = {
  language: "Solidity",
  sources: Object.fromEntries(
    fs
      .readdirSync(sources)
      .filter((name) => name.endsWith(".sol"))
      .sort()
      .map((name) => [name, { content: fs.readFileSync(path.join(sources, name), "utf8") }]),
  ),
  settings: {
    // Runs on networks from 2022 on, and on both development chains.
    evmVersion: "paris",
    optimizer: { enabled: true, runs: 200 },
    // Without the metadata hash the same source always gives the same bytes.
    metadata: { bytecodeHash: "none", appendCBOR: false },
    outputSelection: { "*": { "*": ["abi", "evm.bytecode.object"] } },
  },
};
const result = JSON.parse(solc.compile(JSON.stringify(input)));
const problems = result.errors ?? [];
for (const problem of problems) console.error(problem.formattedMessage);
if (problems.length > 0) process.exit(1);

const compiled = {};
for (const file of Object.keys(input.sources)) {
  const name = path.basename(file, ".sol");
  const contract = result.contracts[file][name];
  // An abstract contract has no code.
  if (!contract.evm.bytecode.object) continue;
  compiled[name] = { abi: contract.abi, bytecode: `0x${contract.evm.bytecode.object}` };
}
const text = `${JSON.stringify(compiled, null, 1)}\n`;
if (mode !== "--check") {
  fs.writeFileSync(output, text);
} else if (!fs.existsSync(output) || fs.readFileSync(output, "utf8") !== text) {
  console.error(`${output} is not what the sources compile to: run .ci/contracts and commit the result`);
  process.exit(1);
}
