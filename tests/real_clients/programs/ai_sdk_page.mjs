import { use } from "./ai_sdk.mjs";

const url = new URLSearchParams(location.search).get("url");
const said = await use(url).catch((error) => ({ error: String(error) }));
await fetch("/said", { method: "POST", body: JSON.stringify(said) });
