// Makes the files of TensorFlow.js that a page without a server takes, in this folder: npm install && npm run build
// They go to hyperrecon_jax/explorer/static/vendor.
//
// The bundle has the WebAssembly backend and one kernel, the convolution: all that unet.js takes from TensorFlow.js.
// The program for several threads is left out. It needs SharedArrayBuffer, which a page from disk does not have.
import { copyFile } from "node:fs/promises";
import { build } from "esbuild";

const VENDOR = new URL("../../hyperrecon_jax/explorer/static/vendor/", import.meta.url).pathname;
const WASM = "tfjs-backend-wasm-simd.wasm";

const leaveOutThreads = {
  name: "leave-out-threads",
  setup(bundle) {
    bundle.onLoad({ filter: /tfjs-backend-wasm-threaded-simd(\.worker)?\.js$/ }, () => ({
      contents: "export const wasmWorkerContents = ''; export default null;",
    }));
  },
};

await build({
  stdin: {
    contents: `
      export { env } from "@tensorflow/tfjs-core/dist/base";
      export { BackendWasm, init, setWasmPaths } from "@tensorflow/tfjs-backend-wasm/dist/backend_wasm";
      export { conv2DConfig } from "@tensorflow/tfjs-backend-wasm/dist/kernels/Conv2D";
    `,
    resolveDir: import.meta.dirname,
  },
  bundle: true,
  minify: true,
  format: "iife",
  globalName: "TensorFlow",
  legalComments: "eof",
  external: ["fs", "path", "worker_threads", "perf_hooks", "os", "util", "string_decoder", "crypto"],
  plugins: [leaveOutThreads],
  outfile: `${VENDOR}tensorflow.js`,
});
await copyFile(`node_modules/@tensorflow/tfjs-backend-wasm/dist/${WASM}`, `${VENDOR}${WASM}`);
