"use strict";

// The token with which this page was opened. It goes out of the address bar, and the browser has a cookie from then on.
// In a frame, such as that of a notebook, the address stays, and each question has the token: cookies may be forbidden.
const Token = (() => {
  const token = new URLSearchParams(location.search).get("token");
  const headers = token ? { "X-Token": token } : {};

  /** An address without the token, for links. */
  function without(address) {
    const url = new URL(address);
    url.searchParams.delete("token");
    return url.href;
  }

  if (token && window.top === window) history.replaceState(null, "", without(location.href));

  return { headers, without };
})();
