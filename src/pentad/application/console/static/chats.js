// Saved chats, in this browser (IndexedDB), apart for each tenant that signs in here. A chat is a
// tree of turns: an edited question or a second answer is a new branch, so nothing is ever lost.

const STORE = "chats";
let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const asked = indexedDB.open("pentad", 1);
    asked.onupgradeneeded = () =>
      asked.result.createObjectStore(STORE, { keyPath: "id" }).createIndex("tenant", "tenant");
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(new Error(`chats cannot be kept in this browser: ${asked.error?.message}`));
  });
  return opened;
}

async function within(mode, act) {
  const base = await database();
  return new Promise((resolve, reject) => {
    const asked = act(base.transaction(STORE, mode).objectStore(STORE));
    asked.onsuccess = () => resolve(asked.result);
    asked.onerror = () => reject(new Error(`the chat was not kept: ${asked.error?.message}`));
  });
}

/** The tenant's chats, the last used first. */
export async function list(tenant) {
  const found = await within("readonly", (store) => store.index("tenant").getAll(tenant));
  return found.sort((a, b) => b.used_at - a.used_at);
}

/** The chat, or null where this tenant has none of that id. */
export async function load(id, tenant) {
  const found = await within("readonly", (store) => store.get(id));
  return found?.tenant === tenant ? found : null;
}

export const save = (chat) => within("readwrite", (store) => store.put({ ...chat, used_at: Date.now() }));

export const remove = (id) => within("readwrite", (store) => store.delete(id));

const ident = () => [...crypto.getRandomValues(new Uint8Array(8))].map((b) => b.toString(16).padStart(2, "0")).join("");

/** A chat without turns. */
export function fresh(tenant, model, sampling) {
  return {
    id: ident(),
    tenant,
    title: "",
    model,
    sampling: { ...sampling },
    turns: {},
    leaf: null,
    used_at: Date.now(),
  };
}

/** Adds a turn below `parent` (null: a first turn) and makes it the last one of the shown branch. */
export function add(chat, parent, turn) {
  const id = ident();
  chat.turns[id] = { ...turn, id, parent, order: Object.keys(chat.turns).length };
  chat.leaf = id;
  return chat.turns[id];
}

/** The turns of the shown branch, first to last. */
export function branch(chat) {
  const path = [];
  for (let turn = chat.turns[chat.leaf]; turn; turn = chat.turns[turn.parent]) path.unshift(turn);
  return path;
}

/** The turns that stand in the same place, itself included, oldest first. */
export function versions(chat, turn) {
  return Object.values(chat.turns)
    .filter((each) => each.parent === turn.parent)
    .sort((a, b) => a.order - b.order);
}

/** Shows the branch through this turn, to its newest end. */
export function choose(chat, turn) {
  let leaf = turn;
  for (let next = leaf; next;) {
    leaf = next;
    next = Object.values(chat.turns)
      .filter((each) => each.parent === leaf.id)
      .sort((a, b) => b.order - a.order)[0];
  }
  chat.leaf = leaf.id;
}
