// Answers questions with llama.cpp, one JSON object a line: {"prompt", "schema", "fresh", "tokens"} in,
// {"text", "seconds", "read", "written"} out. Started by benchmarks/alternatives/measure.py:
//
//     node llama.mjs MODULES MODEL.gguf THREADS CONTEXT
import {createInterface} from "node:readline";
import {pathToFileURL} from "node:url";
import {join} from "node:path";

const [modules, file, threads, contextSize] = process.argv.slice(2);
const entry = pathToFileURL(join(modules, "node-llama-cpp", "dist", "index.js"));
const {getLlama, LlamaCompletion} = await import(entry);

const llama = await getLlama({gpu: false, build: "never", skipDownload: true, logLevel: "error", maxThreads: Number(threads)});
const model = await llama.loadModel({modelPath: file});
const context = await model.createContext({contextSize: Number(contextSize), threads: Number(threads), sequences: 1});
const sequence = context.getSequence();
const completion = new LlamaCompletion({contextSequence: sequence});
const grammars = new Map();
console.log(JSON.stringify({ready: true, llama: llama.llamaCppRelease}));

for await (const line of createInterface({input: process.stdin})) {
    const {prompt, schema, fresh, tokens} = JSON.parse(line);
    const key = JSON.stringify(schema);
    if (fresh)
        await sequence.clearHistory();
    const started = performance.now();
    // Compiled once for a schema, as an agent that keeps its tools would.
    if (!grammars.has(key))
        grammars.set(key, await llama.createGrammarForJsonSchema(schema));
    const ids = model.tokenize(prompt, true);
    const before = sequence.tokenMeter.getState();
    const text = await completion.generateCompletion(ids, {grammar: grammars.get(key), maxTokens: tokens, temperature: 0});
    const seconds = (performance.now() - started) / 1000;
    const used = sequence.tokenMeter.diff(before);
    console.log(JSON.stringify({text, seconds, read: used.usedInputTokens, written: used.usedOutputTokens}));
}
process.exit(0);
