// Sets the colours before the first paint: a classic script, because modules run after it.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem('netabase-theme');
  } catch {
    // Storage may be forbidden; then the system's colours are used.
  }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
