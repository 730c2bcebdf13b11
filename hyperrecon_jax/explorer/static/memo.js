// @ts-check
"use strict";

// Work that is done again only when what it depends on has changed: `memo(name, key, work)` keeps, by name, the last
// answer of `work` and gives it while the entries of `key` stay the same objects or values.
const Memo = () => {
  const results = {};
  return (name, key, work) => {
    const last = results[name];
    const isSame = last && key.length === last.key.length && key.every((part, i) => part === last.key[i]);
    if (!isSame) results[name] = { key, value: work() };
    return results[name].value;
  };
};
