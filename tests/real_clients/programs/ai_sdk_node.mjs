import { use } from "./ai_sdk.mjs";

console.log(JSON.stringify(await use(process.argv[2])));
