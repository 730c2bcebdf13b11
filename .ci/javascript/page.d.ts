// What the types of a browser do not say about the page. Its elements are looked up by id; what each one is stands in
// index.html, and the tests drive it in a browser.

interface Window {
  explorer?: any; // for tests
}

interface Document {
  getElementById(id: string): any;
  querySelector(selector: string): any;
  querySelectorAll(selector: string): NodeListOf<any>;
}

interface Element {
  querySelector(selector: string): any;
  querySelectorAll(selector: string): NodeListOf<any>;
}

// The events of the page come from elements.
interface EventTarget {
  closest(selector: string): any;
  matches: any; // the list of a media query is a target, too
  blur(): void;
}
