// @ts-check
"use strict";

// Work that is done again only when what it depends on has changed: `memo(name, key, work)` keeps, by name, the last
// answer of `work` and gives it while the entries of `key` stay the same objects or values.
const Memo = () => {
  const once = {};
  return (name, key, work) => {
    const last = once[name];
    const same = last && key.length === last.key.length && key.every((part, i) => part === last.key[i]);
    if (!same) once[name] = { key, value: work() };
    return once[name].value;
  };
};
