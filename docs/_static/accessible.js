// What the theme leaves out for keyboards and screen readers.
document.addEventListener("DOMContentLoaded", () => {
  // Captions of the navigation are headings; a heading has a level.
  document.querySelectorAll('[role="heading"]:not([aria-level])').forEach((node) => node.setAttribute("aria-level", "2"));
  // Two side bars: each needs a name.
  document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "Pages");
  document.querySelector(".toc-drawer")?.setAttribute("aria-label", "On this page");
  // The dark layer behind an open side bar repeats the button above for the mouse.
  document.querySelectorAll("label.overlay").forEach((node) => node.setAttribute("aria-hidden", "true"));
  // The corner of a table with row names is empty, and no header.
  document.querySelectorAll("th").forEach((cell) => {
    if (!cell.textContent.trim()) cell.setAttribute("role", "presentation");
  });
  // What scrolls by itself can be reached by the keyboard.
  document.querySelectorAll("pre, table, .math, .table-wrapper, .output, .output > div").forEach((node) => {
    if (node.scrollWidth > node.clientWidth) node.setAttribute("tabindex", "0");
  });
});
